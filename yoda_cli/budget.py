"""A budget for a run: the power of A, and if need be the lower bound, that cost what was asked.

A^γ with γ > 1 keeps diffusion to fewer areas, γ < 1 widens it. Time falls as γ grows, so the γ is
found by bisection on the plan's own forecast, before the first network call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

EXPONENTS = (1 / 32, 32.0)
ROUNDS = 9
SMALLEST_A = 1e-3  # a pixel of A = 0 too must be able to grow


@dataclass(frozen=True)
class Spent:
    """``attention`` raised to ``exponent``; ``share`` of the dense time that it is forecast to
    take with ``lower_bound``."""

    attention: Tensor
    exponent: float
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

    ``seconds_of(A, l)`` is the forecast. The lower bound goes below ``lower_bound``, at the least
    to ``least_bound``, only where no exponent is enough. The nearest where neither is.
    """
    base = attention.clamp(min=SMALLEST_A)
    dense = seconds_of(attention.new_ones(attention.shape), lower_bound)

    def share(exponent: float, lower: float) -> float:
        return seconds_of(base**exponent, lower) / dense

    low, high = EXPONENTS
    lower = lower_bound
    if share(high, lower_bound) <= budget:
        exponent = _bisect(lambda x: share(x, lower_bound), low, high, budget)
    else:
        exponent = high
        lower = _bisect(lambda x: -share(high, x), least_bound, lower_bound, -budget)
    return Spent(base**exponent, exponent, lower, share(exponent, lower))


def _bisect(falling: Callable[[float], float], low: float, high: float, target: float) -> float:
    """Where ``falling`` meets ``target`` between ``low`` and ``high``, on a logarithmic scale."""
    best, distance = high, math.inf
    for _ in range(ROUNDS):
        middle = math.sqrt(low * high)
        value = falling(middle)
        if abs(value - target) < distance:
            best, distance = middle, abs(value - target)
        if value > target:
            low = middle
        else:
            high = middle
    return best
