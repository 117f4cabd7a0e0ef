"""Tiles cover every pixel once, windows lie on the grid, idle tiles are told exactly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yoda_cli.tiling import Tile, Window, count_calls, is_active, make_tiles, run_tiles


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 300), st.integers(0, 64))
def test_cores_partition_the_canvas_and_windows_lie_on_the_grid(rows, cols, core, halo):
    align = 8
    height, width = rows * align, cols * align
    seen = torch.zeros(height, width, dtype=torch.int)
    for tile in make_tiles(height, width, core=core, halo=halo, align=align):
        tile.core.cut(seen).add_(1)
        window = tile.window
        assert 0 <= window.top <= tile.core.top
        assert tile.core.bottom <= window.bottom <= height
        assert tile.core.bottom == height or window.bottom - tile.core.bottom >= min(
            halo, height - tile.core.bottom
        )
        window.divided(align)
    assert (seen == 1).all()


def test_core_zero_is_one_tile():
    (tile,) = make_tiles(48, 80, core=0, halo=16, align=16)
    assert tile == Tile(Window(0, 0, 48, 80), Window(0, 0, 48, 80))


def test_a_canvas_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        make_tiles(33, 32, core=16, halo=0, align=16)


def test_only_active_cores_are_run_and_the_rest_stays():
    tiles = make_tiles(32, 64, core=16, halo=16, align=16)
    mask = torch.zeros(1, 1, 32, 64, dtype=torch.bool)
    mask[..., 17, 40] = True  # one pixel of one core, within the halo of others
    ran = []

    def run(tile):
        ran.append(tile)
        size = (tile.window.bottom - tile.window.top, tile.window.right - tile.window.left)
        return torch.full((1, 3, *size), 7.0)

    out = run_tiles(run, tiles, torch.zeros(1, 3, 32, 64), mask)
    assert len(ran) == 1
    assert ran[0].core == Window(16, 32, 32, 48)
    assert (ran[0].core.cut(out) == 7).all()
    assert out.sum() == 7 * 3 * 256
    assert count_calls([mask, ~mask], tiles) == 1 + len(tiles)
    assert [is_active(mask, t) for t in tiles].count(True) == 1


def test_each_core_comes_from_its_own_window():
    x = torch.randn(1, 2, 48, 64)
    tiles = make_tiles(48, 64, core=16, halo=16, align=16)
    out = run_tiles(lambda tile: tile.window.cut(x) * 2, tiles, torch.zeros_like(x))
    assert torch.equal(out, 2 * x)
