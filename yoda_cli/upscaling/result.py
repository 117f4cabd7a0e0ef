"""What a run hands over: to those who watch it, and in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from yoda_cli.devices.out_of_memory import Recovered
from yoda_cli.diffusion.yoda import StepRecord
from yoda_cli.tiling.budget import Spent
from yoda_cli.upscaling.picture_plan import Survey


@dataclass(frozen=True)
class Pass:
    """One run of the model on a picture in one block.

    ``decode_state`` turns its states into pictures, cut to size.
    """

    survey: Survey
    z_lr: Tensor
    decode_state: Callable[[Tensor], Tensor]

    def decode(self, z: Tensor) -> Tensor:
        """A state as a picture (1, 3, H, W) in [0, 1], on the CPU."""
        return self.decode_state(z).float().clamp(0, 1).cpu()


@dataclass(frozen=True)
class Observer:
    """Callbacks that watch a run; every one may be left out.

    ``whole`` keeps the picture in one block, as ``on_pass`` and ``on_step`` need it.
    """

    on_pass: Callable[[Pass], None] = lambda began: None
    on_plan: Callable[[int, float], None] = lambda calls, seconds: None
    on_call: Callable[[], None] = lambda: None
    on_step: Callable[[StepRecord], None] = lambda record: None
    whole: bool = False


@dataclass(frozen=True)
class Passed:
    """What one pass made, (1, 3, H, W), and how."""

    image: Tensor
    survey: Survey
    calls: int
    forecast_seconds: float
    seconds: float
    recovered: Recovered


@dataclass(frozen=True)
class Result:
    """A finished picture. ``image`` is (1, 3, H, W) in [0, 1]; counts are over all passes.

    ``forecast_seconds`` is what the plan promised for ``seconds``; ``lower_bound`` is the l that
    was used, ``spent`` what a budget made of A.
    """

    image: Tensor
    attention: Tensor
    planned_calls: int
    calls: int
    dense_calls: int
    seconds: float
    forecast_seconds: float
    blocks: int
    lower_bound: float
    spent: Spent | None = None
    recovered: Recovered = field(default_factory=Recovered)
