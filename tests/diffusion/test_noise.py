"""Noise is a pure function of (seed, step, window)."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yoda_cli.diffusion.noise import NoiseField

WHOLE = NoiseField(3).draw(5, 0, 0, 200, 300)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 199), st.integers(0, 299), st.integers(1, 200), st.integers(1, 300))
def test_a_window_is_the_same_part_of_the_whole(top, left, height, width):
    height, width = min(height, 200 - top), min(width, 300 - left)
    part = NoiseField(3).draw(5, top, left, height, width)
    assert torch.equal(part, WHOLE[..., top : top + height, left : left + width])


def test_steps_seeds_and_blocks_are_independent():
    same = NoiseField(3).draw(5, 0, 0, 200, 300)
    assert torch.equal(same, WHOLE)
    for other in (
        NoiseField(3).draw(4, 0, 0, 200, 300),
        NoiseField(4).draw(5, 0, 0, 200, 300),
        NoiseField(3).draw(5, 64, 64, 200, 300),
        NoiseField(3 + 2**40).draw(5, 0, 0, 200, 300),
    ):
        correlation = torch.corrcoef(torch.stack([WHOLE.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 0.02


def test_noise_is_standard_normal():
    values = NoiseField(11).draw(9, 0, 0, 512, 512)
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.1


def test_windows_left_of_the_origin_and_far_away_exist():
    a = NoiseField(1).draw(1, -70, -5, 80, 20)
    assert torch.equal(a[..., 70:, 5:], NoiseField(1).draw(1, 0, 0, 10, 15))
    far = NoiseField(1).draw(1, 0, 80_000_000, 4, 4)
    assert far.std() > 0.3


def test_a_seed_gives_the_same_numbers_for_ever():
    """A result may be asked for again with another version: each place of the lattice is pinned."""
    drawn = NoiseField(3 + 2**40).draw(5, 0, 0, 65, 65)[0]
    places = [(0, 0, 0), (2, 63, 5), (0, 0, 64), (0, 64, 0), (1, 64, 64)]
    found = [round(float(drawn[place]), 4) for place in places]
    assert found == [1.3025, -0.5045, -0.0114, 0.4611, -1.4683]
