"""Models of pixels: survey the picture, then masked reverse diffusion block by block."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yoda_cli.devices.out_of_memory import Counter
from yoda_cli.models.calibration import learn
from yoda_cli.models.model import Model
from yoda_cli.upscaling.blocks import (
    BlockEnd,
    Conditions,
    begin,
    blend_blocks,
    picture_seed,
    run_block,
    run_regions,
)
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.result import Observer, PassEnd
from yoda_cli.upscaling.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from yoda_cli.upscaling.adaptive import RegionRun


@dataclass(frozen=True)
class PixelPipeline:
    """One pass enlarges by the network's own factor; larger scales take several."""

    model: Model
    can_stream: bool = True
    can_cut: bool = True
    one_pass: bool = False
    wanted: Tensor | None = None  # (1, 1, h, w): where the result will be read; all of it if None

    def plan(self, lr: Tensor, settings: Settings, attention: Tensor | None = None) -> PicturePlan:
        """Where a pass over ``lr`` (1, 3, h, w) would work, without running it."""
        return begin(lr, self.model, settings, attention, keep_bytes=0, wanted=self.wanted)[0]

    def run(
        self, lr: Tensor, settings: Settings, observer: Observer,
        attention: Tensor | None = None, noise_of: Tensor | None = None,
    ) -> PassEnd:  # fmt: skip
        """One pass over ``lr`` (1, 3, h, w) in [0, 1].

        ``attention`` (1, 1, h, w) takes the place of the source's map. The noise is that of the
        picture ``noise_of``, ``lr`` if left out.
        """
        began, model = time.perf_counter(), self.model
        counter = Counter(observer.on_call)
        settings = settings.with_block(0) if observer.whole else settings
        plan, conditions = begin(
            lr, model, settings, attention, counter=counter, wanted=self.wanted
        )
        forecast = plan.forecast_seconds or 0.0
        observer.planned(plan, forecast)
        seed = picture_seed(settings.sampling.seed, lr if noise_of is None else noise_of)
        regions: list[RegionRun] = []

        def images() -> Iterator[Tensor]:
            for made in self.blocks(plan, conditions, settings, observer, seed, counter):
                regions.extend([made.region] if made.region else [])
                yield made.image

        image = blend_blocks(plan, images())
        seconds = time.perf_counter() - began
        recovered = counter.recovered()
        # Runs that are watched, of fixed tiles, or short of memory are slower for their reasons.
        if not (observer.whole or plan.first.fixed or plan.first.rule or recovered):
            learn(model, forecast, seconds)
        return PassEnd(
            image, plan, counter.calls, forecast, seconds, recovered, tuple(regions)
        )  # fmt: skip

    def blocks(
        self, plan: PicturePlan, conditions: Conditions, settings: Settings, observer: Observer,
        seed: int, counter: Counter,
    ) -> Iterator[BlockEnd]:  # fmt: skip
        """All blocks in order. Regions that decide for themselves go in groups, so that those at
        the same time share calls."""
        rest = (self.model, settings, observer, seed, counter)
        count = len(plan.blocks)
        if settings.sampling.adaptive is None or not settings.refines:
            for index in range(count):
                yield run_block(plan, index, conditions.take(index), *rest)
            return
        for start in range(0, count, settings.group):
            group = range(start, min(start + settings.group, count))
            yield from run_regions(plan, group, [conditions.take(i) for i in group], *rest)
