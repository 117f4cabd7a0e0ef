"""Tiles and blocks: a canvas cut into cores, each computed on a window. Knows no diffusion.

A tile predicts on its window (core plus halo) and hands over its core; cores partition the canvas.
Windows are hard: a core is read only where its own window was computed, so a tile whose core has
no active pixel can be left out without changing a byte. Blocks are cut the same way but blended,
once, over the width that their windows overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from yoda_cli.arrays import Array

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A rectangle of a canvas: rows ``top:bottom``, columns ``left:right``."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def cut(self, x: Tensor) -> Tensor:
        """The part of ``x`` (…, H, W) inside."""
        return x[..., self.top : self.bottom, self.left : self.right]

    def within(self, outer: Window) -> Window:
        """The same rectangle in ``outer``'s own coordinates."""
        return Window(
            self.top - outer.top,
            self.left - outer.left,
            self.bottom - outer.top,
            self.right - outer.left,
        )

    def divided(self, factor: int) -> Window:
        """The same rectangle on a grid ``factor`` times coarser; every edge must divide."""
        edges = (self.top, self.left, self.bottom, self.right)
        if any(edge % factor for edge in edges):
            raise ValueError(f"{self} does not lie on a grid of {factor}")
        return Window(*(edge // factor for edge in edges))

    def multiplied(self, factor: int) -> Window:
        """The same rectangle on a grid ``factor`` times finer."""
        edges = (self.top, self.left, self.bottom, self.right)
        return Window(*(edge * factor for edge in edges))


@dataclass(frozen=True)
class Tile:
    """A core, and the window that is computed for it."""

    core: Window
    window: Window

    def divided(self, factor: int) -> Tile:
        """The same tile on a grid ``factor`` times coarser."""
        return Tile(self.core.divided(factor), self.window.divided(factor))

    def multiplied(self, factor: int) -> Tile:
        """The same tile on a grid ``factor`` times finer."""
        return Tile(self.core.multiplied(factor), self.window.multiplied(factor))

    def paste(self, canvas: Tensor, result: Tensor) -> None:
        """Copy the core of ``result``, computed on the window, into ``canvas``."""
        self.core.cut(canvas)[...] = self.core.within(self.window).cut(result)


def with_halo(core: Window, halo: int, height: int, width: int) -> Tile:
    """``core`` and as much of ``halo`` around it as the canvas has."""
    window = Window(
        max(core.top - halo, 0),
        max(core.left - halo, 0),
        min(core.bottom + halo, height),
        min(core.right + halo, width),
    )
    return Tile(core, window)


def rounded_up(n: int, multiple: int) -> int:
    """The smallest multiple that is not below ``n``."""
    return -(-n // multiple) * multiple


def make_tiles(height: int, width: int, *, core: int, halo: int, align: int) -> list[Tile]:
    """Tiles in row order that cover (height, width); ``core`` 0 means one tile.

    Every window edge lies on a multiple of ``align``, as do ``height`` and ``width``; core and
    halo are rounded up to it.
    """
    if height % align or width % align:
        raise ValueError(f"a canvas of {height}×{width} does not divide by {align}")
    core = rounded_up(core, align) if core > 0 else max(height, width)
    halo = rounded_up(halo, align)
    return [
        with_halo(
            Window(top, left, min(top + core, height), min(left + core, width)),
            halo,
            height,
            width,
        )
        for top in range(0, height, core)
        for left in range(0, width, core)
    ]


def of_one_shape(tiles: Iterable[Tile], height: int, width: int) -> list[Tile]:
    """The same cores, every window as large as the largest, moved inside the canvas.

    A network called with one shape only rounds the same way in every call.
    """
    tiles = list(tiles)
    tall = max(tile.window.height for tile in tiles)
    wide = max(tile.window.width for tile in tiles)

    def grown(tile: Tile) -> Tile:
        top = min(tile.window.top, height - tall)
        left = min(tile.window.left, width - wide)
        return Tile(tile.core, Window(top, left, top + tall, left + wide))

    return [grown(tile) for tile in tiles]


def halves(tile: Tile, halo: int, align: int, height: int, width: int) -> list[Tile]:
    """Two tiles for the two halves of a core, cut across its longer side on the grid.

    A core of one grid cell gives itself.
    """
    core = tile.core
    if max(core.height, core.width) <= align:
        return [tile]
    if core.height >= core.width:
        cut = core.top + rounded_up(core.height // 2, align)
        cores = [
            Window(core.top, core.left, cut, core.right),
            Window(cut, core.left, core.bottom, core.right),
        ]
    else:
        cut = core.left + rounded_up(core.width // 2, align)
        cores = [
            Window(core.top, core.left, core.bottom, cut),
            Window(core.top, cut, core.bottom, core.right),
        ]
    return [with_halo(half, halo, height, width) for half in cores]


def feather(block: Tile, overlap: int) -> Array:
    """Weights (1, 1, h, w) of a block's window, to be summed over all blocks of a canvas: 1.

    Linear over the middle half of the band that two windows share; the outermost quarter, which
    saw least of its surroundings, is not used. Cores must not be smaller than ``overlap``.
    """

    def ramp(core: tuple[int, int], window: tuple[int, int]) -> Array:
        at = np.arange(*window, dtype=np.float32) + np.float32(0.5)
        rise = (at - core[0]) / max(overlap, 1) + 0.5 if core[0] > window[0] else at + 1
        fall = (core[1] - at) / max(overlap, 1) + 0.5 if core[1] < window[1] else at + 1
        return np.minimum(rise, fall).clip(0, 1)

    core, window = block.core, block.window
    rows = ramp((core.top, core.bottom), (window.top, window.bottom))
    columns = ramp((core.left, core.right), (window.left, window.right))
    return (rows[:, None] * columns)[None, None]
