"""The table of latent families: one line each. A model's table in weights.toml names its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch

from yoda_cli.models.latent.family import LatentFamily
from yoda_cli.models.latent.settings import FamilySettings

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


def imported(module: str, name: str) -> Make:
    """The class ``name`` of a module beside this one, imported once a family is made of it."""

    def make(
        name_of_model: str, settings: FamilySettings, files: Mapping[str, Path],
        device: torch.device, precision: torch.dtype,
    ) -> LatentFamily:  # fmt: skip
        family: Make = getattr(import_module(f"yoda_cli.models.latent.{module}"), name)
        return family(name_of_model, settings, files, device, precision)

    return make


FAMILIES: dict[str, FamilyLine] = {
    "addsr": FamilyLine(
        imported("addsr", "AddSR"), ("unet", "controlnet", "ram", "dape", "diffusion")
    ),
    "diffbir": FamilyLine(imported("diffbir", "DiffBIR"), ("controlnet", "diffusion")),
    "stablesr": FamilyLine(
        imported("stablesr", "StableSR"), ("diffusion",), ("modules",), ("decoder",)
    ),
}
