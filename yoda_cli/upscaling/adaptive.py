"""AdaDiffSR: every region on a trajectory of its own, its leaps decided while it runs.

Regions share the noise lattice and meet only when they are blended. Those that stand at the same
time go through the network together. The rule is ``diffusion.adaptive``, the loop
``diffusion.yoda.masked_steps``; this knows the network and the judge.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.devices.device import upload
from yoda_cli.diffusion.adaptive import FALLS, Course, Gains, LeapRule, Trend
from yoda_cli.diffusion.noise import make_draw
from yoda_cli.diffusion.yoda import AttentionMask, Query, Start, masked_steps
from yoda_cli.models.gain import Judge, JudgeOf, RegionView
from yoda_cli.tiling.plan import Plan
from yoda_cli.tiling.windows import Window
from yoda_cli.upscaling.denoisers import Canvas, TiledDenoiser, denoise_together
from yoda_cli.upscaling.settings import SamplingSettings

NOTHING = Gains(0.0, 0.0)
TINY = 1e-8  # of mean squares: a flat estimate has no detail
CELL = 4  # pixels: what is finer is detail, what is coarser is to be kept


@dataclass
class Measured:
    """Gains by plain measures, where no regressor was trained: how near the coarse picture stays
    to the unrefined one, and how strong the fine detail is, both as decades."""

    z_lr: Tensor
    before: Gains | None = None

    def __call__(self, z_0: Tensor, t: int) -> Gains | None:
        cell = min(CELL, *z_0.shape[-2:])
        coarse, kept = (F.avg_pool2d(z, cell) for z in (z_0, self.z_lr))
        fine = z_0 - F.avg_pool2d(z_0, 3, stride=1, padding=1, count_include_pad=False)
        now = Gains(-decades(coarse - kept), decades(fine))
        before, self.before = self.before, now
        return None if before is None else Gains.between(before, now)


def measured(view: RegionView) -> Judge:
    """The judge of a model that has no regressor."""
    return Measured(view.z_lr)


def decades(x: Tensor) -> float:
    """The decimal logarithm of a root mean square."""
    return float((x.double().square().mean() + TINY).log10()) / 2


@dataclass(frozen=True)
class Region:
    """A window of the diffusion grid with a plan of its own.

    ``size`` is that of the whole picture on the grid. ``attention`` (1, 1, h, w) is A on the
    window; ``plan`` and ``denoiser`` are in its own coordinates.
    """

    window: Window
    size: tuple[int, int]
    attention: Tensor
    plan: Plan
    denoiser: TiledDenoiser
    decode: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RegionRun:
    """How a region was made: the times at which the network was called; what was gained at those
    that were ``judged``, and what the rule then made of it.

    ``pixels`` went through the network; it ``left`` before its chain ended.
    """

    window: Window
    times: tuple[int, ...]
    judged: tuple[int, ...]
    gains: tuple[Gains, ...]
    trends: tuple[str, ...]
    pixels: int
    left: bool


@dataclass
class Walk:
    """A region on its way: what it asks of the network next, and its result when it is done.

    ``recent`` holds its last estimates, the oldest first; None where a mask left some pixels out.
    ``gains`` are those of its last step, zero where nobody looked.
    """

    region: Region
    judge: Judge
    course: Course
    steps: Generator[Query, Tensor, Tensor]
    query: Query
    times: list[int] = field(default_factory=list)
    recent: deque[Tensor | None] = field(default_factory=lambda: deque(maxlen=FALLS + 1))
    pixels: int = 0
    result: Tensor | None = None
    left: bool = False
    gains: Gains = NOTHING

    @property
    def canvas(self) -> Canvas:
        """What is to be computed: the tiles of the last of the steps that its leap stands for."""
        tiles = self.region.plan.tiles(self.course.steps[-1])
        return Canvas(self.denoiser, self.query.z_t, self.query.mask, tiles)

    @property
    def denoiser(self) -> TiledDenoiser:
        """The region's, told what the last step gained where its network takes that."""
        denoiser = self.region.denoiser
        if not denoiser.model.backbone.takes_gains:
            return denoiser
        z_lr = denoiser.condition.z_lr
        gains = z_lr.new_tensor([[self.gains.fidelity, self.gains.realism]], dtype=torch.float32)
        return replace(denoiser, condition=replace(denoiser.condition, gains=gains))

    def take(self, z_0: Tensor) -> None:
        """Judge the estimate that was asked for, decide how far to leap, and take the step."""
        query, z_lr = self.query, self.region.denoiser.condition.z_lr
        complete = bool(query.mask.all())
        seen = z_0 if complete else torch.where(query.mask, z_0, z_lr)
        self.times.append(query.t)
        self.pixels += self.region.plan.pixels_of(self.course.steps[-1:])
        self.recent.append(seen if complete else None)
        decides = query.s > 0 and self.course.heeds(query.s)  # then the next estimate does, or this
        gains = self.judge(seen, query.t) if decides else None
        self.gains = gains or NOTHING
        if len(self.times) > 1 and query.s > 0:
            pace = self.course.learn(gains, query.t)
            self.left = pace.trend is Trend.SATURATED
            best = self.recent[0]
            if self.left and len(self.recent) > FALLS and best is not None:
                self.result = best
                return
        try:
            self.query = self.steps.send(z_0)
        except StopIteration as end:
            self.result = end.value

    def run(self) -> RegionRun:
        """What is told of it."""
        course = self.course
        trends = tuple(trend.value for trend in course.trends)
        return RegionRun(
            self.region.window, tuple(self.times), tuple(course.judged), tuple(course.gains),
            trends, self.pixels, self.left,
        )  # fmt: skip


def sample_regions(
    regions: Sequence[Region], sampling: SamplingSettings, rule: LeapRule, judge_of: JudgeOf,
    seed: int, start: Start = "noise",
) -> list[tuple[Tensor, RegionRun]]:  # fmt: skip
    """z_0 (1, C, h, w) of every region, and how it was made.

    What a region decides depends on nothing but itself: neither on the others nor their number.
    """
    walks = [begin_walk(region, sampling, rule, judge_of, seed, start) for region in regions]
    while waiting := [walk for walk in walks if walk.result is None]:
        t = max(walk.query.t for walk in waiting)
        together = [walk for walk in waiting if walk.query.t == t]
        made = denoise_together([walk.canvas for walk in together], t)
        for walk, z_0 in zip(together, made, strict=True):
            walk.take(z_0)
    return [(walk.result, walk.run()) for walk in walks if walk.result is not None]


def begin_walk(
    region: Region, sampling: SamplingSettings, rule: LeapRule, judge_of: JudgeOf, seed: int,
    start: Start,
) -> Walk:  # fmt: skip
    """A region at the noisy end of its chain."""
    condition, window = region.denoiser.condition, region.window
    schedule, z_lr = region.denoiser.model.backbone.schedule, condition.z_lr
    course = Course(region.plan.timesteps, rule)
    steps = masked_steps(
        sampling.sampler.step,
        schedule,
        course,
        AttentionMask(
            upload(region.attention, z_lr.device), region.plan.lower_bound, schedule.num_steps
        ),
        z_lr,
        make_draw(z_lr, seed, sampling.sampler, window.top, window.left, upload=upload),
        start=start,
    )
    judge = judge_of(RegionView(window, region.size, z_lr, region.decode))
    return Walk(region, judge, course, steps, next(steps))
