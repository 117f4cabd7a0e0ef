"""The record of a model: a network ready to run, and how it likes to be sampled."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

from yoda_cli.config import SampleDefaults
from yoda_cli.devices.device import autocast
from yoda_cli.models.base import Backbone
from yoda_cli.models.latent.family import LatentFamily

FIDELITY_PER_DENOISE, DRIEST = 1.0, 0.8  # no picture loses its diffusion unless it is asked for


@dataclass(frozen=True, eq=False)
class Model:
    """A network ready to run, and how it likes to be sampled.

    ``family`` is what a latent model has beside its network; its ``native`` factor is only a
    default.
    """

    name: str
    backbone: Backbone
    defaults: SampleDefaults
    device: torch.device
    precision: torch.dtype
    card: Mapping[str, Any] = field(default_factory=dict)
    family: LatentFamily | None = None
    native: int = 0

    @property
    def scale(self) -> int:
        """The factor by which it enlarges when none is asked for."""
        return self.native or self.backbone.geometry.scale

    @property
    def can_denoise(self) -> bool:
        """Whether it was trained on degraded pictures too."""
        options = self.card.get("training", {}).get("options", {})
        return float(options.get("degrade", 0)) > 0

    def fidelity(self, asked: float | None, strength: float) -> float:
        """What was asked for; else the checkpoint's own, and more where the picture is degraded by
        ``strength``: what is made up there is more often wrong."""
        if asked is not None:
            return asked
        return max(self.defaults.fidelity, min(DRIEST, FIDELITY_PER_DENOISE * strength))

    def context(self) -> AbstractContextManager[Any]:
        """What network calls run under."""
        return autocast(self.device, self.precision)()
