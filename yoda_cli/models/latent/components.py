"""The files of a latent model, and the parts that families share, read when needed, freed after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from yoda_cli.devices.memory import free_bytes
from yoda_cli.errors import DeviceError
from yoda_cli.images.resize import imresize
from yoda_cli.models.latent.autoencoder import Autoencoder, load_vae
from yoda_cli.models.latent.family import Steering
from yoda_cli.models.latent.restorers import Restorer, restorer_of
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.latent.text import load_text, text_states
from yoda_cli.models.nets.text import TextTower
from yoda_cli.weights.structures import identify
from yoda_cli.weights.tensors import read_tensors

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
RESTORER = "preprocess_model."

T = TypeVar("T")

ROOMY = 8 << 30  # free bytes above which parts stay for the next picture
MARGIN = 1.2  # of the weights' size: what else is held while they are read and used


@dataclass(eq=False)
class Kept(Generic[T]):
    """What is read when it is first needed, and kept while anybody uses it or there is room."""

    read: Callable[[], T]
    has_room: Callable[[], bool]
    value: T | None = None
    users: int = 0

    @contextmanager
    def lent(self) -> Iterator[T]:
        """For as long as the context lasts; contexts may be nested."""
        value = self.value = self.read() if self.value is None else self.value
        self.users += 1
        try:
            yield value
        finally:
            self.users -= 1
            if not self.users and not self.has_room():
                self.value = None


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
    _restorer: Kept[Restorer] = field(init=False)
    _vae: Kept[nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self._restorer = Kept(self._read_restorer, lambda: self.has_room)
        self._vae = Kept(self._read_vae, lambda: self.has_room)

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

    def check_memory(self, weights: int, beside: int = 0) -> None:
        """Refuse networks of ``weights`` values that will not fit beside ``beside`` bytes."""
        needed = round(weights * torch.finfo(self.precision).bits / 8 * MARGIN) + beside
        free = self.free
        if needed > free:
            raise DeviceError(
                f"{self.name} needs about {needed / 1e9:.1f} GB on {self.device} for its "
                f"networks, and {free / 1e9:.1f} GB are free"
            )

    @contextmanager
    def restorer(self) -> Iterator[Restorer | None]:
        """Stage one, kept where there is room; None if the model has none."""
        if "stage1" not in self.files:
            yield None
            return
        with self._restorer.lent() as restorer:
            yield restorer

    def restore(self, lr: Tensor, height: int, width: int) -> Tensor:
        """(1, 3, height, width) in [0, 1] by stage one; without one the enlarged picture."""
        with self.restorer() as restorer:
            if restorer is None:
                return imresize(lr, (height, width)).clamp(0, 1)
            return restorer.restore(lr, height, width)

    def _read_restorer(self) -> Restorer:
        tensors, path = self.tensors("stage1", RESTORER), self.files["stage1"]
        return restorer_of(tensors, str(path), self.device)

    @contextmanager
    def autoencoder(self, tile: int = 0) -> Iterator[Autoencoder]:
        """The VAE in fp32 (half precision overflows in it), kept where there is room."""
        with self._vae.lent() as vae:
            yield Autoencoder(vae, self.device, tile)

    def _read_vae(self) -> nn.Module:
        vae: nn.Module = load_vae(
            self.tensors("diffusion", VAE), str(self.files["diffusion"]), self.device
        )
        return vae

    def text(self, prompt: str) -> Tensor:
        """Text states (1, 77, C) of a prompt; the tower is read for new ones only."""
        path = self.files["diffusion"]

        def tower() -> TextTower:
            return load_text(self.tensors("diffusion", TEXT), str(path), self.settings.text_heads)

        return text_states(prompt, path, tower).to(self.device)

    def prompts(self, steering: Steering) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """The tokens of what is wanted and of what is not, if that is asked for."""
        wanted = {"text": self.text(steering.prompt)}
        if steering.cfg == 1:
            return wanted, None
        return wanted, {"text": self.text(steering.negative_prompt)}
