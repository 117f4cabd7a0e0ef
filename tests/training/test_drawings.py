"""Drawn pictures for training."""

import numpy as np
import pytest

from yoda_cli.training.drawings import draw


def test_a_seed_draws_the_same_picture_again():
    first, again, other = (draw(96, [], np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (first.shape, first.dtype) == ((96, 96, 3), np.uint8)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(5))
def test_pictures_have_edges_and_flat_places(seed):
    grey = draw(128, [], np.random.default_rng(seed)).mean(2)
    steps = np.abs(np.diff(grey, axis=1))
    assert steps.max() > 20
    assert np.median(steps) < 1
