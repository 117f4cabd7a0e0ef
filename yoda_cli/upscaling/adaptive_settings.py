"""What was asked of a run that decides on its way (AdaDiffSR), resolved against a model."""

from __future__ import annotations

from dataclasses import dataclass

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.adaptive import LEAPS, TAU, LeapRule
from yoda_cli.errors import UsageError
from yoda_cli.models.model import Model

REGION = 512  # output pixels: the side of a region that decides for itself, as in the paper


@dataclass(frozen=True)
class AdaptiveSettings:
    """How a run that decides on its way decides: ``leaps`` are thousandths of T, as asked for, ()
    for those of the rule; ``regressor`` is the file that judges, "" for the model's own."""

    rule: LeapRule
    leaps: tuple[float, ...]
    regressor: str

    def rows(self) -> list[tuple[str, object]]:
        """What decides the pixels, by the name of its option."""
        rows: list[tuple[str, object]] = [("tau", self.rule.tau)]
        if self.leaps:
            rows.append(("leaps", ",".join(f"{leap:g}" for leap in self.leaps)))
        return rows + ([("regressor", self.regressor)] if self.regressor else [])


def resolve_adaptive(
    asked: UpscaleOptions, model: Model, timesteps: tuple[int, ...]
) -> AdaptiveSettings | None:
    """Leaps in thousandths of T as whole steps of the chain, one at least."""
    if not asked.adaptive:
        return None
    steps = len(timesteps) - 1
    if steps < 2:
        raise UsageError(
            f"--adaptive decides from step to step, and model {model.name} would take {steps}: "
            "give --steps 2 or more"
        )
    leaps = asked.leaps or ()
    whole = sorted({max(1, round(leap * steps / 1000)) for leap in leaps})
    rule = LeapRule(asked.tau or TAU, tuple(whole) or LEAPS)
    return AdaptiveSettings(rule, leaps, asked.regressor or "")


def region_side(asked: UpscaleOptions, model: Model) -> int | None:
    """The side of blocks: regions are blocks, of pixels as large as a tile at least. None leaves
    it to the planner; regions of latents are their windows."""
    if not asked.adaptive or asked.block is not None or model.family is not None:
        return asked.block
    return max(REGION, asked.tile or 0)
