"""The table of latent families: one line each. A model's table in weights.toml names its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from yoda_cli.models.latent.addsr import AddSR
from yoda_cli.models.latent.diffbir import DiffBIR
from yoda_cli.models.latent.family import LatentFamily
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.latent.stablesr import StableSR

Make = Callable[
    [str, FamilySettings, Mapping[str, Path], torch.device, torch.dtype], LatentFamily
]  # fmt: skip


@dataclass(frozen=True)
class FamilyLine:
    """How a family is made, and the roles of the files that every run of it reads.

    ``optional`` roles are read where the model has them, those ``with_fidelity`` only where some
    is asked for.
    """

    make: Make
    roles: tuple[str, ...]
    optional: tuple[str, ...] = ()
    with_fidelity: tuple[str, ...] = ()


FAMILIES: dict[str, FamilyLine] = {
    "addsr": FamilyLine(AddSR, ("unet", "controlnet", "ram", "dape", "diffusion")),
    "diffbir": FamilyLine(DiffBIR, ("controlnet", "diffusion")),
    "stablesr": FamilyLine(StableSR, ("diffusion",), ("modules",), ("decoder",)),
}
