"""What a run hands over: to those who watch it, and in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from yoda_cli.arrays import as_float32, on_cpu
from yoda_cli.devices.out_of_memory import Recovered
from yoda_cli.diffusion.yoda import StepRecord
from yoda_cli.tiling.budget import Spent
from yoda_cli.upscaling.picture_plan import PicturePlan

if TYPE_CHECKING:
    from torch import Tensor

    from yoda_cli.upscaling.adaptive import RegionRun


@dataclass(frozen=True)
class PassBegin:
    """One run of the model on a picture in one block, as it begins.

    ``decode_state`` turns its states into pictures, cut to size.
    """

    plan: PicturePlan
    z_lr: Tensor
    decode_state: Callable[[Tensor], Tensor]

    def decode(self, z: Tensor) -> Tensor:
        """A state as a picture (1, 3, H, W) in [0, 1], on the CPU."""
        return on_cpu(as_float32(self.decode_state(z)).clip(0, 1))


@dataclass(frozen=True)
class Ahead:
    """What a run has still to do: network calls, those of a run that skips nothing, blocks."""

    calls: int = 0
    dense_calls: int = 0
    blocks: int = 0
    seconds: float = 0.0

    def __add__(self, other: Ahead) -> Ahead:
        return Ahead(
            self.calls + other.calls,
            self.dense_calls + other.dense_calls,
            self.blocks + other.blocks,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Observer:
    """Callbacks that watch a run; every one may be left out.

    ``on_plan`` hears, as a pass begins, the calls and seconds from there to the end of all passes:
    those of the pass itself, and what ``further`` says of the passes after it. ``whole`` keeps the
    picture in one block, as ``on_pass`` and ``on_step`` need it.
    """

    on_pass: Callable[[PassBegin], None] = lambda begun: None
    on_plan: Callable[[int, float], None] = lambda calls, seconds: None
    on_call: Callable[[], None] = lambda: None
    on_step: Callable[[StepRecord], None] = lambda record: None
    further: Callable[[PicturePlan], Ahead] = lambda plan: Ahead()
    whole: bool = False

    def planned(self, plan: PicturePlan, seconds: float) -> None:
        """A pass begins, for which ``seconds`` were forecast."""
        later = self.further(plan)
        self.on_plan(plan.planned_calls + later.calls, seconds + later.seconds)


@dataclass(frozen=True)
class PassEnd:
    """What one pass made, (1, 3, H, W), and how."""

    image: Tensor
    plan: PicturePlan
    calls: int
    forecast_seconds: float
    seconds: float
    recovered: Recovered
    regions: tuple[RegionRun, ...] = ()

    @property
    def network_pixels(self) -> int:
        """Pixels of all windows that went through the network."""
        if self.regions:
            return sum(region.pixels for region in self.regions)
        return sum(plan.network_pixels for plan in self.plan.plans)


@dataclass(frozen=True)
class Result:
    """A finished picture. ``image`` is (1, 3, H, W) in [0, 1]; counts are over all passes.

    ``forecast_seconds`` is what the plan promised for ``seconds``; ``lower_bound`` is the l that
    was used, ``spent`` what a budget made of A, ``faces`` how many were restored apart.
    ``regions`` are those of the first pass of a run that decided on its way; the calls planned for
    one are what was expected of it. ``canvas_pixels`` went through the encoder, ``network_pixels``
    through the network.
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
    faces: int = 0
    regions: tuple[RegionRun, ...] = ()
    canvas_pixels: int = 0
    network_pixels: int = 0


def sum_of(one: Result, other: Result) -> Result:
    """What two results of one picture took together; the rest is the first one's."""
    return replace(
        one,
        planned_calls=one.planned_calls + other.planned_calls,
        calls=one.calls + other.calls,
        dense_calls=one.dense_calls + other.dense_calls,
        seconds=one.seconds + other.seconds,
        forecast_seconds=one.forecast_seconds + other.forecast_seconds,
        blocks=one.blocks + other.blocks,
        recovered=one.recovered + other.recovered,
    )


def result_of(passes: Sequence[PassEnd], image: Tensor, seconds: float) -> Result:
    """One result of all passes; map and budget are those of the first."""
    plan = passes[0].plan
    return Result(
        image=image,
        attention=plan.attention,
        planned_calls=sum(p.plan.planned_calls for p in passes),
        calls=sum(p.calls for p in passes),
        dense_calls=sum(p.plan.dense_calls for p in passes),
        seconds=seconds,
        forecast_seconds=sum(p.forecast_seconds for p in passes),
        blocks=sum(len(p.plan.blocks) for p in passes),
        lower_bound=plan.first.lower_bound,
        spent=plan.spent,
        recovered=sum((p.recovered for p in passes), Recovered()),
        regions=passes[0].regions,
        canvas_pixels=sum(plan.pixels for p in passes for plan in p.plan.plans),
        network_pixels=sum(p.network_pixels for p in passes),
    )
