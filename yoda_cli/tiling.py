"""Tiles: a per-window denoiser run over a canvas, idle tiles skipped. Knows no diffusion.

A tile predicts on its window (core plus halo) and hands over its core; cores partition the canvas.
Windows are hard: a core is read only where its own window was computed, so a tile whose core has
no active pixel can be left out without changing a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A rectangle of a canvas: rows ``top:bottom``, columns ``left:right``."""

    top: int
    left: int
    bottom: int
    right: int

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


@dataclass(frozen=True)
class Tile:
    """A core, and the window that is computed for it."""

    core: Window
    window: Window


def make_tiles(height: int, width: int, *, core: int, halo: int, align: int) -> list[Tile]:
    """Tiles in row order that cover (height, width); ``core`` 0 means one tile.

    Every window edge lies on a multiple of ``align``, as do ``height`` and ``width``; core and
    halo are rounded up to it.
    """
    if height % align or width % align:
        raise ValueError(f"a canvas of {height}×{width} does not divide by {align}")
    core = -(-core // align) * align if core > 0 else max(height, width)
    halo = -(-halo // align) * align
    tiles = []
    for top in range(0, height, core):
        for left in range(0, width, core):
            bottom, right = min(top + core, height), min(left + core, width)
            window = Window(
                max(top - halo, 0),
                max(left - halo, 0),
                min(bottom + halo, height),
                min(right + halo, width),
            )
            tiles.append(Tile(Window(top, left, bottom, right), window))
    return tiles


def is_active(mask: Tensor, tile: Tile) -> bool:
    """Whether any pixel of the tile's core will be read."""
    return bool(tile.core.cut(mask).any())


def run_tiles(
    run: Callable[[Tile], Tensor], tiles: Sequence[Tile], out: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Fill ``out`` (1, C, H, W) with the core of every ``run(tile)``; idle tiles stay as they are.

    ``run`` returns the whole window, at ``out``'s resolution.
    """
    for tile in tiles:
        if mask is not None and not is_active(mask, tile):
            continue
        result = run(tile)
        tile.core.cut(out).copy_(tile.core.within(tile.window).cut(result))
    return out


def count_calls(masks: Iterable[Tensor], tiles: Sequence[Tile]) -> int:
    """How many tiles all ``masks`` together make active."""
    return sum(is_active(mask, tile) for mask in masks for tile in tiles)
