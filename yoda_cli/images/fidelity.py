"""Between a sample and the regression picture: the perception–distortion curve (arXiv:1711.06077).

Plain interpolation pays for every bit of detail alike. But squared error grows with the square of
what a sample adds to the base, and what the eye and a distance between distributions see grows
about linearly: large departures cost the most and buy the least. So they are drawn back first, by
the square root of how far they exceed a limit, and what lies below it keeps all its detail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yoda_cli.arrays import library_of
from yoda_cli.images.local_mean import local_mean

if TYPE_CHECKING:
    from torch import Tensor

LIMIT = 0.004  # of the mean departure, in [0, 1], at fidelity 0.5
REACH = 5  # pixels on a side of the square over which a departure is averaged


def draw_towards_base(sample: Tensor, base: Tensor, fidelity: float) -> Tensor:
    """``sample`` as ``fidelity`` → 0, ``base`` as it → 1; every pixel moves that way only.

    Pictures are (B, C, H, W) nominally in [0, 1], 0 < f = ``fidelity`` < 1. With d = sample - base
    and a its local mean |d|, the result is base + d·√min(1, K/a), K = LIMIT·(1 - f)/f.
    """
    limit = LIMIT * (1 - fidelity) / fidelity
    departure = sample - base
    mean = local_mean(abs(departure).mean(1)[:, None], REACH)
    departure *= library_of(mean).sqrt(limit / mean.clip(min=limit))
    departure += base
    return departure
