"""A budget for a run: the map from A to steps that costs what was asked.

A^γ with γ > 1 keeps diffusion to fewer areas, γ < 1 widens it. Where no γ is enough, the whole map
is made weaker, and in the end the lower bound smaller. Time falls along each of these, so the
value is found by bisection on the plan's own forecast, before the first network call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yoda_cli.arrays import zeros

if TYPE_CHECKING:
    from torch import Tensor

#: With half or twice as much of any of these the forecast lies as near to the budget: in the median
#: over pictures, maps and budgets within about 1 % (`scripts/measure_constants.py EXPONENTS`, and
#: so on).
#: But for half of ``ROUNDS``: 3.2 %.
EXPONENTS = (1 / 32, 4.0)  # of A: nearly 1 wherever A is above 0 … far below A
WEAKEST = 1 / 64  # weight of A: what is left of it is below any lower bound in use
ROUNDS = 9  # of halving: the exponent's range of 128 is then known to 1 %
SMALLEST_A = 1e-3  # a pixel of A = 0 too must be able to grow


@dataclass(frozen=True)
class Spent:
    """``attention`` is weight·A^exponent; ``share`` of the dense time that it is forecast to take
    with ``lower_bound``."""

    attention: Tensor
    exponent: float
    weight: float
    lower_bound: float
    share: float


def spend(
    attention: Tensor,
    budget: float,
    lower_bound: float,
    least_bound: float,
    seconds_of: Callable[[Tensor, float], float],
) -> Spent:
    """The map and lower bound whose forecast is ``budget`` times that of A = 1.

    ``seconds_of(A, l)`` is the forecast. The nearest that there is, where nothing meets it.
    """
    base = attention.clip(min=SMALLEST_A)
    dense = seconds_of(zeros(attention, *attention.shape) + 1, lower_bound)

    def spent(exponent: float, weight: float, lower: float) -> Spent:
        bent = weight * base**exponent
        return Spent(bent, exponent, weight, lower, seconds_of(bent, lower) / dense)

    widest, narrowest = EXPONENTS
    stages: list[tuple[Callable[[float], Spent], float, float]] = [
        (lambda x: spent(x, 1.0, lower_bound), narrowest, widest),
        (lambda x: spent(narrowest, x, lower_bound), WEAKEST, 1.0),
        (lambda x: spent(narrowest, WEAKEST, x), least_bound, lower_bound),
    ]
    for of, cheap, dear in stages[:-1]:
        if of(cheap).share <= budget:
            return _bisect(of, cheap, dear, budget)
    return _bisect(*stages[-1], budget)


def _bisect(of: Callable[[float], Spent], cheap: float, dear: float, budget: float) -> Spent:
    """The nearest to ``budget`` between two values, on a logarithmic scale."""
    best = of(dear)
    for _ in range(ROUNDS):
        middle = math.sqrt(cheap * dear)
        found = of(middle)
        if abs(found.share - budget) < abs(best.share - budget):
            best = found
        cheap, dear = (middle, dear) if found.share <= budget else (cheap, middle)
    return best
