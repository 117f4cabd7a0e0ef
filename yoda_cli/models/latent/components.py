"""The files of a latent model, and the parts that families share, read when needed, freed after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from yoda_cli.devices.memory import free_bytes
from yoda_cli.errors import DeviceError
from yoda_cli.models.latent.autoencoder import Autoencoder, load_vae
from yoda_cli.models.latent.restorers import Restorer, restorer_of
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.latent.text import load_text, text_states
from yoda_cli.models.nets.text import TextTower
from yoda_cli.weights.structures import identify
from yoda_cli.weights.tensors import read_tensors

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
RESTORER = "preprocess_model."

ROOMY = 8 << 30  # free bytes above which parts stay for the next picture
MARGIN = 1.2  # of the weights' size: what else is held while they are read and used


@dataclass(eq=False)
class Components:
    """Files by role, and where and how to compute.

    ``diffusion`` is the file of Stable Diffusion (U-Net, autoencoder, text tower), ``stage1`` that
    of a restorer.
    """

    name: str
    settings: FamilySettings
    files: Mapping[str, Path]
    device: torch.device
    precision: torch.dtype
    _restorer: Restorer | None = None
    _vae: nn.Module | None = None

    def unexpected(self, role: str, wanted: str) -> str:
        """What the file of a role is instead."""
        path = self.files[role]
        found = identify(read_tensors(path, only_shapes=True))
        return f"{path} is {found.description}; {wanted} was expected"

    def tensors(self, role: str, prefix: str) -> dict[str, Tensor]:
        """Those of one network; a file that holds it alone has no prefix."""
        state = read_tensors(self.files[role])
        if any(key.startswith(prefix) for key in state):
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        return state

    @property
    def free(self) -> int:
        """Bytes that can be had on the device now."""
        return free_bytes(self.device)

    @property
    def has_room(self) -> bool:
        """Whether what was read may stay for the next picture."""
        return self.free >= ROOMY

    def check_memory(self, weights: int) -> None:
        """Refuse networks of ``weights`` values that will not fit."""
        needed = round(weights * torch.finfo(self.precision).bits / 8 * MARGIN)
        free = self.free
        if needed > free:
            raise DeviceError(
                f"{self.name} needs about {needed / 1e9:.1f} GB on {self.device} for its "
                f"networks, and {free / 1e9:.1f} GB are free"
            )

    @contextmanager
    def restorer(self) -> Iterator[Restorer | None]:
        """Stage one, kept where there is room; None if the model has none."""
        if self._restorer is None and "stage1" in self.files:
            path = self.files["stage1"]
            tensors = self.tensors("stage1", RESTORER)
            self._restorer = restorer_of(tensors, str(path), self.device)
        try:
            yield self._restorer
        finally:
            if not self.has_room:
                self._restorer = None

    @contextmanager
    def autoencoder(self, tile: int = 0) -> Iterator[Autoencoder]:
        """The VAE in fp32 (half precision overflows in it), kept where there is room."""
        if self._vae is None:
            path = self.files["diffusion"]
            self._vae = load_vae(self.tensors("diffusion", VAE), str(path), self.device)
        try:
            yield Autoencoder(self._vae, self.device, tile)
        finally:
            if not self.has_room:
                self._vae = None

    def text(self, prompt: str) -> Tensor:
        """Text states (1, 77, C) of a prompt; the tower is read for new ones only."""
        path = self.files["diffusion"]

        def tower() -> TextTower:
            return load_text(self.tensors("diffusion", TEXT), str(path), self.settings.text_heads)

        return text_states(prompt, path, tower).to(self.device)
