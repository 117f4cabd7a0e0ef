"""Drawn pictures for training."""

import numpy as np
import pytest
import torch

from yoda_cli.training.data import PairStore
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


def test_drawings_are_trained_on_beside_photographs_the_same_ones_each_time(tmp_path):
    first, again = (
        PairStore.load([], 4, ["edge"], tmp_path, torch.device("cpu"), 16, drawings=2)
        for _ in range(2)
    )
    assert first.lr.width.tolist() == [128, 128]
    assert torch.equal(first.hr.pixels, again.hr.pixels)
    halves = first.hr.pixels.chunk(2)
    assert not torch.equal(*halves)
    batch = first.batch(2, 16, torch.Generator().manual_seed(0))
    assert batch.hr.shape == (2, 3, 64, 64)
    assert set(batch.maps) == {"edge"}
