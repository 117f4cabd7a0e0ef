"""Tiles cover every pixel once, windows lie on the grid, idle tiles are told exactly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yoda_cli.tiling.windows import (
    Tile,
    Window,
    feather,
    halves,
    make_tiles,
    of_one_shape,
    with_halo,
)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 300), st.integers(0, 64))
def test_cores_partition_the_canvas_and_windows_lie_on_the_grid(rows, cols, core, halo):
    align = 8
    height, width = rows * align, cols * align
    seen = torch.zeros(height, width, dtype=torch.int)
    for tile in make_tiles(height, width, core=core, halo=halo, align=align):
        tile.core.cut(seen).add_(1)
        window = tile.window
        assert window.top >= 0
        assert window.left >= 0
        assert window.bottom <= height
        assert window.right <= width
        for seen_there, there_is in (
            (tile.core.top - window.top, tile.core.top),
            (tile.core.left - window.left, tile.core.left),
            (window.bottom - tile.core.bottom, height - tile.core.bottom),
            (window.right - tile.core.right, width - tile.core.right),
        ):  # on every side: all of the halo, and no more than its last grid cell needs
            assert min(halo, there_is) <= seen_there < halo + align
        window.divided(align)
    assert (seen == 1).all()


def test_core_zero_is_one_tile():
    (tile,) = make_tiles(48, 80, core=0, halo=16, align=16)
    assert tile == Tile(Window(0, 0, 48, 80), Window(0, 0, 48, 80))


def test_a_canvas_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        make_tiles(33, 32, core=16, halo=0, align=16)


def test_a_tile_hands_over_its_core_only():
    tiles = make_tiles(32, 64, core=16, halo=16, align=16)
    canvas = torch.zeros(1, 3, 32, 64)
    tile = tiles[6]
    assert tile.core == Window(16, 32, 32, 48)
    tile.paste(canvas, torch.full((1, 3, tile.window.height, tile.window.width), 7.0))
    assert (tile.core.cut(canvas) == 7).all()
    assert canvas.sum() == 7 * 3 * tile.core.pixels


def test_each_core_comes_from_its_own_window():
    x, out = torch.randn(1, 2, 48, 64), torch.zeros(1, 2, 48, 64)
    for tile in make_tiles(48, 64, core=16, halo=16, align=16):
        tile.paste(out, tile.window.cut(x) * 2)
    assert torch.equal(out, 2 * x)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 9))
def test_windows_of_one_shape_hold_their_cores_and_stay_inside(rows, cols, core):
    height, width = 8 * rows, 8 * cols
    tiles = make_tiles(height, width, core=8 * core, halo=16, align=8)
    same = of_one_shape(tiles, height, width)
    assert len({(t.window.height, t.window.width) for t in same}) == 1
    for before, after in zip(tiles, same, strict=True):
        core, window = after.core, after.window
        assert core == before.core
        assert 0 <= window.top <= before.window.top
        assert before.window.bottom <= window.bottom <= height
        assert 0 <= window.left <= before.window.left
        assert before.window.right <= window.right <= width


def test_halving_a_core_loses_no_pixel_and_ends_at_one_cell():
    tile = with_halo(Window(16, 32, 64, 96), 8, 128, 128)
    two = halves(tile, 8, 16, 128, 128)
    assert [t.core for t in two] == [Window(16, 32, 64, 64), Window(16, 64, 64, 96)]
    assert two[0].window == Window(8, 24, 72, 72)
    cell = with_halo(Window(16, 16, 32, 32), 8, 128, 128)
    assert halves(cell, 8, 16, 128, 128) == [cell]


@pytest.mark.parametrize("sides", [(64, 200), (137, 64), (300, 300)])
def test_the_weights_of_all_blocks_sum_to_one(sides):
    height, width = sides
    total = torch.zeros(1, 1, height, width)
    outermost = []
    for block in make_tiles(height, width, core=64, halo=16, align=1):
        weight = torch.from_numpy(feather(block, 16))
        block.window.cut(total).add_(weight)
        if block.window.top > 0:
            outermost.append(weight[..., :8, :].max())
    assert torch.allclose(total, torch.ones(()), atol=1e-5)
    assert max(outermost, default=0) == 0
