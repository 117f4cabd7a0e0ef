"""DiffBIR (arXiv:2308.15070): a restorer, then Stable Diffusion under a ControlNet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from yoda_cli.errors import WeightsError
from yoda_cli.models.base import Condition, Guidance
from yoda_cli.models.latent.components import UNET, Components
from yoda_cli.models.latent.controlled import ControlledUNet, diffbir_design
from yoda_cli.models.latent.denoising import LATENT
from yoda_cli.models.latent.family import Codec, Steering
from yoda_cli.models.latent.lending import Networks
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.nets import ldm

CONTROL = "control_model."


class DiffBIR:
    """Files by role: ``diffusion`` (Stable Diffusion 2.1), ``controlnet``, ``stage1`` or none.

    ``net`` has the networks' shapes from the start and their weights inside ``denoiser``.
    """

    wraps = False
    unread = ()

    def __init__(
        self, name: str, settings: FamilySettings, files: Mapping[str, Path],
        device: torch.device, precision: torch.dtype,
    ) -> None:  # fmt: skip
        """Look at the files, so that a wrong one is refused before any work."""
        self.name, self.settings, self.files = name, settings, files
        self.parts = Components(name, settings, files, device, precision)
        control = self.parts.tensors("controlnet", CONTROL)
        diffusion = self.parts.tensors("diffusion", UNET)
        if "zero_convs.0.0.weight" not in control:
            raise WeightsError(self.parts.unexpected("controlnet", "DiffBIR's ControlNet"))
        if "out.2.weight" not in diffusion:
            raise WeightsError(self.parts.unexpected("diffusion", "Stable Diffusion 2.1"))
        head = settings.head_dim
        one, other = ldm.infer_unet(diffusion, head), ldm.infer_unet(control, head)
        if replace(other, in_channels=one.in_channels) != one:
            what = f"the partner of {files['controlnet']}"
            raise WeightsError(self.parts.unexpected("diffusion", what))
        if other.in_channels != one.in_channels + LATENT:
            raise WeightsError(self.parts.unexpected("controlnet", "DiffBIR's ControlNet"))
        self.net = ControlledUNet(diffbir_design(one, other), settings.prediction)
        self.net.check("unet", diffusion, str(files["diffusion"]))
        self.net.check("control", control, str(files["controlnet"]))
        self.networks = Networks(
            self.parts,
            self.net,
            {
                "unet": partial(self.source, "diffusion", UNET),
                "control": partial(self.source, "controlnet", CONTROL),
            },
        )

    def check_memory(self) -> None:
        """Of U-Net and ControlNet, the largest parts."""
        self.networks.check_memory()

    def restore(self, lr: Tensor, height: int, width: int) -> Tensor:
        """By stage one; without one the enlarged picture."""
        return self.parts.restore(lr, height, width)

    def codec(self, tile: int, steering: Steering) -> AbstractContextManager[Codec]:
        """Stable Diffusion's own autoencoder."""
        return self.parts.autoencoder(tile)

    def condition(
        self, z_lr: Tensor, restored: Tensor, lr: Tensor, steering: Steering
    ) -> Condition:
        """The code as the ControlNet's hint, and the prompts' states."""
        encoded = self.net.encode(z_lr)
        tokens, negative = self.parts.prompts(steering)
        guidance = Guidance(
            tokens, negative, steering.cfg, steering.strength, steering.fidelity
        )  # fmt: skip
        return replace(encoded, guidance=guidance)

    def refine(self, condition: Condition, z_0: Tensor, restored: Tensor, tile: int) -> Condition:
        """As it was: every step is steered by the restored picture."""
        return condition

    def denoiser(self) -> AbstractContextManager[ControlledUNet]:
        """U-Net and ControlNet."""
        return self.networks.lent()

    def source(self, role: str, prefix: str) -> tuple[Mapping[str, Tensor], str]:
        """The tensors of a network, and the name of their file."""
        return self.parts.tensors(role, prefix), str(self.files[role])
