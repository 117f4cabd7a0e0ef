"""Rows of a canvas that a cache holds: what is computed pixel by pixel goes faster band by band."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yoda_cli.arrays import is_plain

if TYPE_CHECKING:
    from torch import Tensor

#: fp32 values: 3 MB, and a step holds a few bands of them. Half and twice as many take as long, up
#: to the difference of two readings (`scripts/measure_constants.py BAND_VALUES`).
BAND_VALUES = 3 << 18


@dataclass(frozen=True)
class Band:
    """The rows ``top:bottom`` of a canvas."""

    top: int
    bottom: int

    def cut(self, x: Tensor) -> Tensor:
        """The part of ``x`` (…, H, W) inside."""
        return x[..., self.top : self.bottom, :]


def bands(x: Tensor) -> list[Band]:
    """Whole rows of ``x`` (…, H, W), as many together as a CPU's cache holds; a GPU's: all.

    What lies between the operations on a band needs no fresh memory, of which large canvases'
    worth is slow to come by.
    """
    height = x.shape[-2]
    is_cached = is_plain(x) or x.device.type == "cpu"
    rows = max(BAND_VALUES // (math.prod(x.shape) // height), 1) if is_cached else height
    return [Band(top, min(top + rows, height)) for top in range(0, height, rows)]
