"""Rows of a canvas that a cache holds: what is computed pixel by pixel goes faster band by band."""

from __future__ import annotations

from torch import Tensor

from yoda_cli.tiling.windows import Window

BAND_VALUES = 3 << 18


def bands(x: Tensor) -> list[Window]:
    """Whole rows of ``x`` (…, H, W), as many together as a CPU's cache holds; a GPU's: all.

    What is computed pixel by pixel goes faster band by band: what lies between its operations
    needs no fresh memory, of which large canvases' worth is slow to come by.
    """
    height, width = x.shape[-2:]
    rows = height if x.device.type != "cpu" else max(BAND_VALUES // (x.numel() // height), 1)
    return [Window(top, 0, min(top + rows, height), width) for top in range(0, height, rows)]
