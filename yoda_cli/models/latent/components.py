"""The parts of one DiffBIR model, read from its files when they are needed and freed after.

No two of the large ones need be in memory together: restorer, text tower, autoencoder, and the
U-Net with its ControlNet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from yoda_cli.devices.memory import free_bytes
from yoda_cli.devices.out_of_memory import free_memory
from yoda_cli.errors import DeviceError, WeightsError
from yoda_cli.models.latent.autoencoder import Autoencoder
from yoda_cli.models.latent.diffbir import LATENT, DiffBIR, Guidance, load_vae
from yoda_cli.models.latent.restorers import Restorer, restorer_of
from yoda_cli.models.latent.settings import Version
from yoda_cli.models.latent.text import load_text, text_states
from yoda_cli.models.nets import ldm
from yoda_cli.models.nets.text import TextTower
from yoda_cli.weights.structures import identify
from yoda_cli.weights.tensors import read_tensors

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."

CONTROL, RESTORER = "control_model.", "preprocess_model."

ROOMY = 8 << 30  # free bytes above which parts stay for the next picture
MARGIN = 1.2  # of the weights' size: what else is held while they are read and used


@dataclass(eq=False)
class Parts:
    """Files by role (controlnet, diffusion, stage1), and where and how to compute.

    ``net`` has the networks' shapes from the start and their weights between ``load`` and
    ``unload``.
    """

    name: str
    version: Version
    files: Mapping[str, Path]
    device: torch.device
    precision: torch.dtype
    net: DiffBIR = field(init=False)
    _restorer: Restorer | None = None
    _vae: nn.Module | None = None

    def __post_init__(self) -> None:
        """Look at the files, so that a wrong one is refused before any work."""
        control, diffusion = self.tensors("controlnet", CONTROL), self.tensors("diffusion", UNET)
        if "zero_convs.0.0.weight" not in control:
            raise WeightsError(self.unexpected("controlnet", "DiffBIR's ControlNet"))
        if "out.2.weight" not in diffusion:
            raise WeightsError(self.unexpected("diffusion", "Stable Diffusion 2.1"))
        head = self.version.head_dim
        one, other = ldm.infer_unet(diffusion, head), ldm.infer_unet(control, head)
        if replace(other, in_channels=one.in_channels) != one:
            what = f"the partner of {self.files['controlnet']}"
            raise WeightsError(self.unexpected("diffusion", what))
        if other.in_channels != one.in_channels + LATENT:
            raise WeightsError(self.unexpected("controlnet", "DiffBIR's ControlNet"))
        self.net = DiffBIR(one, other, self.version.prediction)
        self.net.check("unet", diffusion, str(self.files["diffusion"]))
        self.net.check("control", control, str(self.files["controlnet"]))

    def unexpected(self, role: str, wanted: str) -> str:
        """What the file of a role is instead."""
        path = self.files[role]
        return f"{path} is {identify(read_tensors(path)).description}; {wanted} was expected"

    def tensors(self, role: str, prefix: str) -> dict[str, Tensor]:
        """Those of one network; a file that holds it alone has no prefix."""
        state = read_tensors(self.files[role])
        if any(key.startswith(prefix) for key in state):
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        return state

    @cached_property
    def weight_bytes(self) -> int:
        """What U-Net and ControlNet take, loaded."""
        size = torch.finfo(self.precision).bits // 8
        return size * _share(self.net)

    def check_memory(self) -> None:
        """Refuse a run whose networks will not fit, before anything large is read.

        Where a GPU has room for one of the two at a time they are offloaded.
        """
        if not self.net.is_empty:
            return
        needed, free = round(self.weight_bytes * MARGIN), free_bytes(self.device)
        larger = needed * max(_share(self.net.unet), _share(self.net.control)) / _share(self.net)
        self.net.offloaded = self.device.type == "cuda" and larger < free < needed
        if needed > free and not self.net.offloaded:
            raise DeviceError(
                f"{self.name} needs about {needed / 1e9:.1f} GB on {self.device} for its "
                f"networks, and {free / 1e9:.1f} GB are free"
            )

    def load(self) -> None:
        """U-Net's and ControlNet's weights into ``net``, unless they are there."""
        if not self.net.is_empty:
            return
        self.check_memory()
        for part, role, prefix in (("unet", "diffusion", UNET), ("control", "controlnet", CONTROL)):
            state = self.tensors(role, prefix)
            where = "cpu" if self.net.offloaded else self.device
            self.net.fill(part, state, str(self.files[role]), where, self.precision)

    @contextmanager
    def networks(self) -> Iterator[DiffBIR]:
        """U-Net and ControlNet, loaded; kept for the next picture where there is room."""
        self.load()
        try:
            yield self.net
        finally:
            if free_bytes(self.device) < ROOMY:
                self.net.unload()
                free_memory()

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
            if free_bytes(self.device) < ROOMY:
                self._restorer = None

    @contextmanager
    def autoencoder(self, tile: int = 0) -> Iterator[Autoencoder]:
        """The VAE, kept where there is room."""
        if self._vae is None:
            self._vae = self.load_vae()
        try:
            yield Autoencoder(self._vae, self.device, tile)
        finally:
            if free_bytes(self.device) < ROOMY:
                self._vae = None

    def load_vae(self) -> nn.Module:
        """The VAE, in fp32: half precision overflows in it."""
        path = self.files["diffusion"]
        vae: nn.Module = load_vae(self.tensors("diffusion", VAE), str(path), self.device)
        return vae

    def guidance(
        self, prompt: str | None, negative: str | None, cfg: float | None,
        strength: float | Sequence[float], fidelity: float,
    ) -> Guidance:  # fmt: skip
        """Text states and scales; None takes the version's own."""
        version, path = self.version, self.files["diffusion"]
        scale = version.cfg if cfg is None else cfg

        def states(text: str) -> Tensor:
            def tower() -> TextTower:
                return load_text(self.tensors("diffusion", TEXT), str(path), version.text_heads)

            return text_states(text, path, tower).to(self.device)

        wanted = states(version.prompt if prompt is None else prompt)
        if scale == 1:
            return Guidance(wanted, None, 1.0, strength, fidelity)
        unwanted = states(version.negative_prompt if negative is None else negative)
        return Guidance(wanted, unwanted, scale, strength, fidelity)


def _share(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
