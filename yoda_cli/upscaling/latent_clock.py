"""How long a run of latents takes besides its diffusion: learnt by runs, guessed before the first.

Restoring, coding, decoding and, in some families, what makes the condition anew between two steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from yoda_cli.models.calibration import learn, learn_around
from yoda_cli.models.model import Model
from yoda_cli.tiling.cost import Costs
from yoda_cli.tiling.plan import Plan, forecast_seconds

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds of decoding a picture over those of coding it: 16 over 5.8 for 512×512 in bf16 on a CPU,
#: 2.2 for 64×64 in fp32 with random weights (`scripts/measure_constants.py DECODE`).
DECODE = 2.7


@dataclass
class Clock:
    """Of one run. ``refinements`` is how often a picture is decoded between two steps."""

    model: Model
    variant: str
    refinements: int
    began: float = field(default_factory=lambda: time.perf_counter())
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Add what the block takes to ``seconds[what]``."""
        began = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - began

    def timed(self, what: str, run: Callable[P, R]) -> Callable[P, R]:
        """``run``, whose calls are counted as ``what``."""

        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.timing(what):
                return run(*args, **kwargs)

        return counted

    @property
    def elapsed(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self.began

    def forecast(self, plan: Plan, costs: Costs) -> float:
        """Seconds of the whole run, in its middle: the picture has been coded."""
        if not costs.around:
            ahead = self.seconds["coding"] * DECODE * (1 + self.refinements)
            costs = replace(costs, around=(self.elapsed + ahead) / plan.pixels / costs.pace)
        return forecast_seconds([plan], costs)

    def learn(self, plan: Plan, costs: Costs) -> None:
        """Let the next forecasts follow this run, which has ended."""
        diffusion = self.seconds["diffusion"] - self.seconds.get("refining", 0.0)
        around = self.elapsed - diffusion - self.seconds["measuring"]
        expected = forecast_seconds([plan], replace(costs, around=0.0))
        learn(self.model, expected, diffusion, self.variant)
        learn_around(self.model, around / plan.pixels, self.variant)
