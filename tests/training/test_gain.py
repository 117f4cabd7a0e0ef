"""Learning what steps gain: trajectories, the fit, and how it is told."""

import itertools

import numpy as np
import pytest
import torch
from fakes import fake_model, photo, save_photo

from yoda_cli.diffusion.adaptive import Gains
from yoda_cli.errors import InputError, UsageError
from yoda_cli.evaluation.metrics import psnr, texture_distance
from yoda_cli.evaluation.metrics.gain import DB_PER_TEXTURE, Oracle, multi_scale_ssim, true_sums
from yoda_cli.models.gain import RegionView, is_regressor
from yoda_cli.models.nets.gain import GainNet
from yoda_cli.tiling.windows import Window
from yoda_cli.training.gain import (
    Sample,
    fit,
    rank,
    rank_correlation,
    sample_trajectory,
    train_gain,
)


def test_true_gains_stand_in_units_of_texture():
    hr = photo(64, 96)
    sr = (hr + 0.02 * torch.randn(1, 3, 64, 96, generator=torch.manual_seed(0))).clamp(0, 1)
    sums = true_sums(sr, hr)
    assert sums.fidelity == psnr(sr, hr) / DB_PER_TEXTURE + multi_scale_ssim(sr, hr)
    assert sums.realism == -texture_distance(sr, hr)
    best = true_sums(hr, hr)
    assert best.realism == 0
    assert best.fidelity > sums.fidelity


def test_an_oracle_sees_its_own_region_of_the_truth_and_no_padding():
    hr, window = photo(60, 100), Window(24, 40, 64, 104)  # reaches beyond the picture
    padded = torch.nn.functional.pad(hr, (0, 4, 0, 4))
    view = RegionView(window, (60, 100), torch.zeros(1, 3, 40, 64), lambda z: z)
    oracle = Oracle(hr, view)
    sr, truth = oracle.pictures(window.cut(padded))
    assert torch.equal(sr, truth)
    assert truth.shape == (1, 3, 36, 60)
    assert oracle(window.cut(padded) * 0.9, 10) is None
    gains = oracle(window.cut(padded), 5)
    assert gains.fidelity > 0
    assert gains.realism > 0


def test_an_oracle_compares_latents_at_the_size_they_are_decoded_to():
    view = RegionView(
        Window(0, 4, 8, 12), (8, 12), torch.zeros(1, 4, 8, 8),
        lambda z: torch.full((1, 3, 64, 64), 0.5),
    )  # fmt: skip
    sr, hr = Oracle(photo(32, 48), view).pictures(torch.zeros(1, 4, 8, 8))
    assert sr.shape == hr.shape == (1, 3, 64, 64)


def test_a_trajectory_gives_a_sample_for_every_step_that_the_rule_heeds():
    kept = []
    sample_trajectory(fake_model(), photo(128, 128), np.random.default_rng(1), kept)
    assert len(kept) >= 3
    for sample in kept:
        assert sample.before.shape == sample.after.shape == (1, 3, 128, 128)
        assert 0.5 >= sample.times[1] > 0
        assert sample.times[0] > sample.times[1]
        assert -1 < sample.gains.realism < 1
    assert all(torch.equal(a.after, b.before) for a, b in itertools.pairwise(kept))


def steps_that_tell(count, seed):
    """A step gains realism by how much it changed the picture, fidelity by how late it is."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        size, t = rng.uniform(0, 1), rng.uniform(0.1, 0.9)
        before = torch.from_numpy(rng.normal(size=(1, 3, 16, 16))).half()
        gains = Gains(0.02 * t, 0.05 * size)
        found.append(Sample(before, before + size, before * 0, (t + 0.1, t), gains))
    return found


def test_the_regressor_learns_to_rank_what_can_be_told():
    torch.manual_seed(0)
    net = GainNet(3)
    fit(net, steps_that_tell(200, 0), 0.0, 80, np.random.default_rng(0), lambda line: None)
    ranked = rank(net, steps_that_tell(60, 1))
    assert ranked.realism > 0.8
    assert ranked.fidelity > 0.8


def test_ranks_are_spearmans():
    x, y = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0]), torch.tensor([9.0, 1.0, 8.0, 20.0, 30.0])
    assert rank_correlation(x, x**3) == pytest.approx(1.0)
    assert rank_correlation(x, -x) == pytest.approx(-1.0)
    assert rank_correlation(x, y) == pytest.approx(1 - 6 * 2 / (5 * 24))  # one pair is exchanged
    assert rank_correlation(x[:1], y[:1]) == 0


def test_a_model_of_one_call_and_pictures_too_small_are_refused(tmp_path):
    for i in range(2):
        save_photo(tmp_path / f"{i}.png", 40, 40, seed=i)
    with pytest.raises(InputError, match="too small"):
        train_gain(fake_model(), tmp_path, tmp_path / "g.safetensors", steps=1)
    model = fake_model()
    model.backbone.schedule = type("One", (), {"num_steps": 1})
    with pytest.raises(UsageError, match="does not diffuse"):
        train_gain(model, tmp_path, tmp_path / "g.safetensors", steps=1)


def test_the_command_trains_tells_and_its_file_is_used(yoda, tmp_path, tiny_checkpoint):
    (tmp_path / "photos").mkdir()
    for i in range(2):
        save_photo(tmp_path / "photos" / f"{i}.png", 140, 130, seed=i)
    out = ("--data", tmp_path / "photos", "-o", tmp_path / "run", "--recipe", "gain")
    done = yoda("train", *out, "--model", tiny_checkpoint, "--steps", 2)
    assert done.code == 0, done.err
    assert "ranked with a correlation of" in done.err
    made = tmp_path / "run" / "tiny-gain.safetensors"
    assert done.out.strip() == str(made)
    assert is_regressor(made)
    save_photo(tmp_path / "in.png", 20, 24)
    common = ("upscale", tmp_path / "in.png", "-o", tmp_path / "out.png", "--adaptive")
    done = yoda(*common, "--model", tiny_checkpoint, "--regressor", made, "--steps", 9)
    assert done.code == 0, done.err
    assert "of 9 steps each" in done.err
    refused = yoda(*common, "--overwrite", "--model", "general", "--regressor", made)
    assert refused.code == 5
    assert "of model tiny, not of general" in refused.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--recipe", "gain"), "--model NAME"),
        (("--recipe", "gain", "--model", "general", "--batch", "2"), "does not read"),
        (("--model", "general"), "is for --recipe gain"),
    ],
)
def test_options_of_another_recipe_are_refused(yoda, tmp_path, more, said):
    done = yoda("train", "--data", tmp_path, "-o", tmp_path / "run", *more)
    assert done.code == 2
    assert said in done.err
