"""The record of a model: a network ready to run, and how it likes to be sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yoda_cli.config import SampleDefaults
from yoda_cli.devices.device import PlainCpu, autocast
from yoda_cli.devices.graphs import RUNTIME, runtime_version
from yoda_cli.diffusion.samplers import SAMPLERS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from yoda_cli.models.backbone import Backbone
    from yoda_cli.models.face_detector import Face
    from yoda_cli.models.gain import JudgeOf
    from yoda_cli.models.latent.family import LatentFamily

DRIEST = 0.8  # fidelity by default: no picture loses its diffusion unless it is asked for


def wrong_default(defaults: SampleDefaults) -> tuple[str, str] | None:
    """The setting that no run could use, and what it may be; None if there is none."""
    if defaults.sampler not in SAMPLERS:
        return "sampler", f"{defaults.sampler!r} is unknown; use {', '.join(SAMPLERS)}"
    if not 0 < defaults.lower_bound <= 1:
        return "lower_bound", f"{defaults.lower_bound:g} is not in (0, 1]"
    if defaults.steps < 1:
        return "steps", f"{defaults.steps} is not 1 or more"
    if not 0 <= defaults.fidelity <= 1:
        return "fidelity", f"{defaults.fidelity:g} is not in [0, 1]"
    if not 0 <= defaults.damaged_fidelity <= 1:
        return "damaged_fidelity", f"{defaults.damaged_fidelity:g} is not in [0, 1]"
    return None


@dataclass(frozen=True, eq=False)
class FaceHelp:
    """What restores the faces of a photograph: who finds them, and the model for one of them,
    upright on a square."""

    detect: Callable[[Tensor], Sequence[Face]]
    model: Model


@dataclass(frozen=True, eq=False)
class Model:
    """A network ready to run, and how it likes to be sampled.

    ``family`` is what a latent model has beside its network; its ``native`` factor is only a
    default. ``faces`` is there where faces are to be restored apart, ``where`` where another
    model's picture is to be blended in, ``judge_of`` where a network judges the steps of a run that
    decides on its way. ``files`` hold the weights of what diffuses.
    """

    name: str
    backbone: Backbone
    defaults: SampleDefaults
    device: torch.device
    precision: torch.dtype
    card: Mapping[str, Any] = field(default_factory=dict)
    family: LatentFamily | None = None
    native: int = 0
    faces: FaceHelp | None = None
    where: Model | None = None
    judge_of: JudgeOf | None = None
    files: Sequence[Path] = ()

    @property
    def scale(self) -> int:
        """The factor by which it enlarges when none is asked for."""
        return self.native or self.backbone.geometry.scale

    @property
    def diffuses(self) -> bool:
        """Whether it goes step by step; one that does not makes its picture in a single call."""
        return self.backbone.schedule.num_steps > 1

    @property
    def can_denoise(self) -> bool:
        """Whether it, or the model that is blended in, was trained on degraded pictures too."""
        return self.knows_damage or (self.where is not None and self.where.knows_damage)

    @property
    def knows_damage(self) -> bool:
        """Whether it was itself."""
        options = self.card.get("training", {}).get("options", {})
        return float(options.get("degrade", 0)) > 0

    def fidelity(self, asked: float | None, strength: float) -> float:
        """What was asked for; else the checkpoint's own, and more where the picture is degraded by
        ``strength``: what is made up there is more often wrong."""
        if asked is not None:
            return asked
        if self.family is not None and self.family.wraps:
            return self.defaults.fidelity
        return max(self.defaults.fidelity, min(DRIEST, self.defaults.damaged_fidelity * strength))

    @property
    def is_plain(self) -> bool:
        """Whether ncnn runs it, and pictures are NumPy's arrays."""
        return isinstance(self.device, PlainCpu)

    @property
    def software(self) -> tuple[str, str]:
        """What runs it, and the version of that."""
        if self.is_plain:
            return RUNTIME, runtime_version()
        import torch

        return "torch", torch.__version__

    def context(self) -> AbstractContextManager[Any]:
        """What network calls run under."""
        return autocast(self.device, self.precision)()
