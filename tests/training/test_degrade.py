"""Damage for training: seeded, of every kind, and its strength says how much of it there is."""

import numpy as np
import pytest
from fakes import photo

from yoda_cli.training.data import PairStore, list_pictures
from yoda_cli.training.degrade import clean_lr, degrade, strength_of


@pytest.fixture(scope="module")
def hr():
    return (photo(160, 192)[0].permute(1, 2, 0) * 255).byte().numpy()


@pytest.fixture(scope="module")
def made(hr):
    return [degrade(hr, 4, np.random.default_rng(seed)) for seed in range(60)]


def test_a_seed_draws_the_same_damage_again(hr, made):
    lr, strength = degrade(hr, 4, np.random.default_rng(7))
    assert np.array_equal(lr, made[7][0])
    assert strength == made[7][1]
    assert len({lr.tobytes() for lr, _ in made}) == len(made)


def test_damaged_pictures_have_the_clean_ones_size_and_place(hr, made):
    clean = clean_lr(hr, 4)
    mean = np.mean([lr.astype(float) for lr, _ in made], axis=0)
    shifted = np.roll(clean, 1, axis=1).astype(float)
    for lr, _ in made:
        assert (lr.shape, lr.dtype) == ((40, 48, 3), np.uint8)
    inside = (slice(2, -2), slice(2, -2))
    assert np.abs(mean - clean)[inside].mean() < np.abs(mean - shifted)[inside].mean()


def test_strengths_spread_over_their_range(made):
    strengths = [strength for _, strength in made]
    assert all(0 <= strength <= 1 for strength in strengths)
    assert min(strengths) < 0.3
    assert max(strengths) > 0.6


def test_the_strength_is_what_is_seen_of_the_damage(hr):
    """Blur and codecs do nothing to a flat picture; the same do much to another."""
    flat, kinds = np.full_like(hr, 90), set()
    for seed in range(12):
        (lr, on_busy), (same, on_flat) = (
            degrade(picture, 4, np.random.default_rng(seed)) for picture in (hr, flat)
        )
        assert on_busy == strength_of(lr, clean_lr(hr, 4)) > 0
        assert (on_flat == 0) == (same == 90).all()
        kinds.add(on_flat == 0)
    assert kinds == {True, False}


def test_strength_is_none_for_clean_and_grows_with_noise(hr):
    clean = clean_lr(hr, 4)
    assert strength_of(clean, clean) == 0
    noise = np.random.default_rng(0).standard_normal(clean.shape)
    found = [
        strength_of(np.clip(clean + sigma * noise, 0, 255).astype(np.uint8), clean)
        for sigma in (2, 8, 25)
    ]
    assert 0 < found[0] < found[1] < found[2] <= 1


def test_blocks_of_a_codec_lie_anywhere_in_a_crop(tmp_path):
    """A crop that starts at the picture's corner keeps it; others are damaged with a margin."""
    import torch
    from fakes import save_photo

    save_photo(tmp_path / "a.png", 160, 160)
    store = PairStore.load(
        list_pictures(tmp_path), 4, [], tmp_path / "maps", torch.device("cpu"), 8
    )
    batch = store.batch(12, 8, torch.Generator().manual_seed(0), degrade=1.0)
    assert batch.lr.shape == (12, 3, 8, 8)
    assert (batch.strength > 0).sum() > 8
    assert (batch.hr - torch.nn.functional.interpolate(batch.lr, scale_factor=4)).abs().mean() < 0.3
