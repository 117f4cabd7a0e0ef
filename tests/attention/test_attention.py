"""Attention sources without weights."""

import pytest
import torch
from fakes import photo

from yoda_cli.attention import SOURCES


@pytest.mark.parametrize("name", sorted(SOURCES))
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (7, 33), (5, 1000), (64, 48)])
def test_every_source_maps_any_size_into_the_unit_interval(name, size):
    attention = SOURCES[name](photo(*size))
    assert attention.shape == (1, 1, *size)
    assert attention.dtype == torch.float32
    assert attention.isfinite().all()
    assert attention.min() >= 0
    assert attention.max() <= 1


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_picture_without_contrast_gives_no_nan(name):
    for value in (0.0, 0.5, 1.0):
        attention = SOURCES[name](torch.full((1, 3, 20, 30), value))
        assert attention.isfinite().all()
        if name in ("edge", "sift"):
            assert (attention == attention[0, 0, 0, 0]).all()


def square():
    lr = torch.full((1, 3, 64, 64), 0.2)
    lr[..., 20:44, 20:44] = 0.9
    return lr


def test_edges_are_where_the_picture_changes_and_wider_than_a_line():
    attention = SOURCES["edge"](square())
    assert attention[0, 0, 20, 32] > 0.7
    assert attention[0, 0, 23, 32] > 0.1
    assert attention[0, 0, 32, 32] < 0.1
    assert attention[0, 0, 5, 5] < 0.01
    assert attention.max() == 1


def test_in_a_large_picture_a_single_edge_is_darker_than_dense_ones():
    lr = torch.full((1, 3, 256, 512), 0.2)
    lr[..., 100:] = 0.8
    lr[..., 96:160, 400:464] = (torch.arange(64) // 4 % 2).float()
    attention = SOURCES["edge"](lr)
    assert attention[0, 0, 128, 432] > 0.9
    assert attention[0, 0, 128, 100] < 0.5 < attention[0, 0, 128, 410]
    assert attention[0, 0, :, 200:350].max() < 0.01


def test_key_points_are_where_structure_is():
    lr = torch.full((1, 3, 64, 64), 0.5)
    lr[..., 28:36, 44:52] = 1.0
    attention = SOURCES["sift"](lr)
    assert attention[..., 24:40, 40:56].max() == 1
    assert attention[..., :20, :20].max() < 0.05


def test_the_gaussian_sits_in_the_middle_and_is_symmetric():
    attention = SOURCES["gaussian"](photo(33, 65))
    assert attention[0, 0, 16, 32] == attention.max() == 1
    assert torch.allclose(attention, attention.flip(-1))
    assert torch.allclose(attention, attention.flip(-2))
    assert attention[0, 0, 0, 0] < 0.05


def test_uniform_is_one_everywhere():
    assert (SOURCES["uniform"](photo(3, 5)) == 1).all()
