"""What becomes of the unrefined picture and of drawn detail where a damaged picture is restored.

NumPy's arrays and torch's tensors alike. All numbers were chosen on held-out photographs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yoda_cli.images.local_mean import local_mean
from yoda_cli.tiling.grids import bilinear

if TYPE_CHECKING:
    from torch import Tensor

#: Strengths of damage: where the restored picture begins to take the base's place, and where it is
#: all of it. Light compression loses more in the painted look than it gains.
FROM, FULL = 0.15, 0.35
CELL = 4  # pixels; the restored picture's sides are multiples of it
#: Cells of the windows, applied twice, whose mean brightness and mean colours stay those of the
#: base. A codec leaves blotches of colour in the base, of up to 16 cells.
BRIGHTNESS, COLOUR = 3, 25
FINE, NEAR = 5, 9  # pixels: what counts as detail, and over which its size is averaged
BUSY = 0.03  # mean size of detail, from which on all that was drawn is added


def share_of(strength: Tensor) -> Tensor:
    """How much of the base the restored picture replaces, 0 … 1, at strengths in [0, 1]."""
    return ((strength - FROM) / (FULL - FROM)).clip(0, 1)


def with_restored(base: Tensor, restored: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The base with ``restored`` in it, both (B, 3, H, W) in [0, 1], and how much of the detail
    that is drawn counts (B, 1, H, W) in [0, 1]; ``share`` is (B, 1, 1, 1).

    Restoring networks shift contrast and colours: wide means stay as they were. Grain that is
    drawn in calm places looks like the noise that was taken out: there it is left out.
    """
    change = base - restored
    brighter = grey_of(change)
    restored = restored + wide_means(brighter, BRIGHTNESS) + wide_means(change - brighter, COLOUR)
    grey = grey_of(restored)
    detail = local_mean(abs(grey - local_mean(grey, FINE)), NEAR)
    calm = 1 - (detail / BUSY).clip(0, 1)
    return base + share * (restored - base), 1 - share * calm


def grey_of(x: Tensor) -> Tensor:
    """(B, 1, H, W): the mean of the colours."""
    return (x[:, :1] + x[:, 1:2] + x[:, 2:]) / 3


def wide_means(x: Tensor, reach: int) -> Tensor:
    """(B, C, H, W): means over ``reach`` (odd) cells each way, twice."""
    height, width = x.shape[-2:]
    cells = (height // CELL, CELL, width // CELL, CELL)
    means = x.reshape(*x.shape[:2], *cells).mean((3, 5))
    for _ in range(2):
        means = local_mean(means, reach)
    return bilinear(means, (height, width))
