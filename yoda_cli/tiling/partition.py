"""The cheapest way to cut a canvas into rectangles when idle ones cost nothing. Knows no network.

A cut runs from edge to edge of what it cuts (guillotine cuts), so the best partition is found by
dynamic programming over all rectangles of a coarse grid. A rectangle's cost is that of its window,
in pixels, and a fixed overhead per call; one without an active cell is free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yoda_cli.tiling.windows import Window

TOGETHER = 16  # patterns searched at once: bounds memory for long chains

Bools = NDArray[np.bool_]

Costs = NDArray[np.float64]


@dataclass(frozen=True)
class Canvas:
    """A canvas (height, width) under a grid of square cells, and what a window on it costs.

    ``halo`` pixels are computed around a rectangle; ``overhead`` is what a call costs before its
    first pixel, in pixels; windows of more than ``largest`` pixels are not allowed (a single
    cell's always is).
    """

    height: int
    width: int
    cell: int
    halo: int
    overhead: float
    largest: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return -(-self.height // self.cell), -(-self.width // self.cell)

    def window_costs(self, rows: int, columns: int) -> Costs:
        """Of every rectangle of (rows, columns) cells, by its top and left cell."""
        tall = _spans(rows, self.shape[0], self.cell, self.halo, self.height)
        wide = _spans(columns, self.shape[1], self.cell, self.halo, self.width)
        pixels = tall[:, None] * wide
        if rows * columns > 1:
            pixels = np.where(pixels > self.largest, np.inf, pixels)
        return pixels + self.overhead

    def core(self, top: int, left: int, rows: int, columns: int) -> Window:
        """The pixels of a rectangle of cells."""
        cell = self.cell
        bottom, right = (
            min((top + rows) * cell, self.height),
            min((left + columns) * cell, self.width),
        )
        return Window(top * cell, left * cell, bottom, right)


def _spans(cells: int, count: int, cell: int, halo: int, size: int) -> Costs:
    """Lengths of the windows of ``cells`` neighbours along one side, by the first of them."""
    first = np.arange(count - cells + 1, dtype=np.float64) * cell
    return np.minimum(first + cells * cell + halo, size) - np.maximum(first - halo, 0)


def partitions(active: Bools, canvas: Canvas) -> list[list[tuple[Window, bool]]]:
    """For each of K patterns, cores that partition the canvas, and whether each has an active cell.

    ``active`` (K, rows, columns) tells the cells of ``canvas`` that are needed.
    """
    distinct, which = np.unique(active, axis=0, return_inverse=True)
    found: list[list[tuple[Window, bool]]] = []
    for first in range(0, len(distinct), TOGETHER):
        some = distinct[first : first + TOGETHER]
        search = _Search(some, canvas)
        found += [search.cores(k, 0, 0, *canvas.shape) for k in range(len(some))]
    return [found[k] for k in which.ravel()]


class _Search:
    """Costs of the best partition of every rectangle, kept by its top-left corner and, so that
    the second part of a cut is one slice as well, by its bottom and by its right edge."""

    def __init__(self, active: Bools, canvas: Canvas) -> None:
        self.canvas = canvas
        k, n, m = active.shape
        self.sums = sums = np.zeros((k, n + 1, m + 1), dtype=np.int32)
        sums[:, 1:, 1:] = active.cumsum(1).cumsum(2)
        self.best = np.full((n + 1, m + 1, k, n, m), np.inf, dtype=np.float32)
        by_bottom = np.full((n + 1, m + 1, k, n + 1, m), np.inf, dtype=np.float32)
        by_right = np.full((n + 1, m + 1, k, n, m + 1), np.inf, dtype=np.float32)
        for h in range(1, n + 1):
            for w in range(1, m + 1):
                tops, lefts = n - h + 1, m - w + 1
                own = canvas.window_costs(h, w).astype(np.float32)
                cost = np.broadcast_to(own, (k, tops, lefts))
                if h > 1:
                    upper = self.best[1:h, w, :, :tops, :lefts]
                    lower = by_bottom[h - 1 : 0 : -1, w, :, h:, :lefts]
                    cost = np.minimum(cost, (upper + lower).min(0))
                if w > 1:
                    left = self.best[h, 1:w, :, :tops, :lefts]
                    right = by_right[h, w - 1 : 0 : -1, :, :tops, w:]
                    cost = np.minimum(cost, (left + right).min(0))
                count = sums[:, h:, w:] - sums[:, :-h, w:] - sums[:, h:, :-w] + sums[:, :-h, :-w]
                cost = np.where(count == 0, np.float32(0), cost)
                self.best[h, w, :, :tops, :lefts] = cost
                by_bottom[h, w, :, h:, :lefts] = cost
                by_right[h, w, :, :tops, w:] = cost

    def is_idle(self, k: int, top: int, left: int, h: int, w: int) -> bool:
        """Whether a rectangle has no active cell."""
        sums, bottom, right = self.sums[k], top + h, left + w
        inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return bool(inside == 0)

    def cores(self, k: int, top: int, left: int, h: int, w: int) -> list[tuple[Window, bool]]:
        """The rectangles of the best partition of one, in the order of the cuts."""
        if self.is_idle(k, top, left, h, w):
            return [(self.canvas.core(top, left, h, w), False)]
        best = self.best[:, :, k]
        rows = [best[a, w, top, left] + best[h - a, w, top + a, left] for a in range(1, h)]
        columns = [best[h, a, top, left] + best[h, w - a, top, left + a] for a in range(1, w)]
        own = np.float32(self.canvas.window_costs(h, w)[top, left])
        if own <= min(rows + columns, default=np.inf):
            return [(self.canvas.core(top, left, h, w), True)]
        if min(rows, default=np.inf) <= min(columns, default=np.inf):
            a = int(np.argmin(rows)) + 1
            return self.cores(k, top, left, a, w) + self.cores(k, top + a, left, h - a, w)
        a = int(np.argmin(columns)) + 1
        return self.cores(k, top, left, h, a) + self.cores(k, top, left + a, h, w - a)
