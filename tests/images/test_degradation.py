"""Estimating how degraded a picture is: JPEG tables, noise, and what a person is told."""

import json

import numpy as np
import pytest
import torch
from fakes import photo, save_photo
from PIL import Image

from yoda_cli.images import read_picture
from yoda_cli.images.degradation import (
    estimate,
    given,
    jpeg_quality,
    noise_sigma,
)
from yoda_cli.models.model import DRIEST, FIDELITY_PER_DENOISE


def smooth(height=128, width=160):
    """A picture without texture, at 8 bits."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    image = torch.stack([x, y, (x + y) / 2])[None] * 0.6 + 0.2
    return (image * 255).round() / 255


def noisy(image, sigma):
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return ((image + sigma / 255 * noise).clamp(0, 1) * 255).round() / 255


def test_the_mean_strength_given_what_is_seen():
    """Against drawing s and u: the mean of s where s·u is about x."""
    rng = np.random.default_rng(0)
    s, u = rng.random(4_000_000), rng.random(4_000_000)
    for x in (0.1, 0.3, 0.6, 0.9):
        near = np.abs(s * u - x) < 0.005
        assert given(x) == pytest.approx(s[near].mean(), abs=0.01)
    assert (given(0), given(1), given(-3), given(7)) == (0, 1, 0, 1)


@pytest.mark.parametrize("quality", [25, 30, 50, 75, 90, 95])
def test_jpeg_quality_is_read_from_the_table(tmp_path, quality):
    pixels = (photo(64, 64)[0].permute(1, 2, 0) * 255).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=quality)
    picture = read_picture(tmp_path / "a.jpg")
    assert len(picture.jpeg_table) == 64
    assert jpeg_quality(picture.jpeg_table) == pytest.approx(quality, abs=1.5)


def test_other_formats_have_no_table(tmp_path):
    assert read_picture(save_photo(tmp_path / "a.png", 20, 20)).jpeg_table == ()


@pytest.mark.parametrize("sigma", [8, 10, 20])
def test_noise_is_measured(sigma):
    assert noise_sigma(noisy(smooth(), sigma)) == pytest.approx(sigma, rel=0.35)


@pytest.mark.parametrize("size", [(530, 70), (256, 41), (257, 300), (10, 12)])
def test_noise_is_the_same_from_bytes_and_band_by_band(size, monkeypatch):
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    image = (image * 255).round().byte()
    found = noise_sigma(image)
    assert found > 0
    monkeypatch.setattr("yoda_cli.images.degradation.BAND_PIXELS", 1200)  # of 8 to 24 rows
    assert noise_sigma(image.float() / 255) == pytest.approx(found, rel=1e-9)


def test_clean_and_tiny_pictures_have_none():
    assert noise_sigma(smooth()) == 0
    assert noise_sigma(torch.rand(1, 3, 1, 1)) == 0
    assert noise_sigma(torch.full((1, 3, 50, 50), 0.3)) == 0


def test_the_stronger_of_both_decides_and_is_named():
    table = [16] * 64
    clean = estimate(smooth(), None)
    assert (clean.strength, clean.why) == (0, "")
    assert estimate(smooth(), table).why.startswith("JPEG quality")
    assert estimate(noisy(smooth(), 20), [1] * 64).why.startswith("noise of about")
    assert 0 < estimate(smooth(), table).strength <= 1


@pytest.fixture(scope="module")
def restorer(tiny_checkpoint, tmp_path_factory):
    """The tiny network with a card that says it was trained on degraded pictures."""
    from torch import nn

    from yoda_cli.models.checkpoint import load_checkpoint, save_checkpoint

    net, header = load_checkpoint(tiny_checkpoint)
    assert isinstance(net, nn.Module)
    card = {**header.card, "training": {"options": {"degrade": 0.5}}}
    path = tmp_path_factory.mktemp("restorer") / "restorer.safetensors"
    save_checkpoint(path, backbone="srdiff", net=header.net, state=net.state_dict(), card=card)
    return path


def test_auto_says_what_it_chose_and_a_number_decides(yoda, tmp_path, restorer):
    pixels = (photo(40, 40)[0].permute(1, 2, 0) * 255).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "in.jpg", quality=40)
    options = ("-m", restorer, "--precision", "fp32", "--json", "--overwrite")

    def run(*more):
        done = yoda("upscale", tmp_path / "in.jpg", "-o", tmp_path / "o.png", *options, *more)
        assert done.code == 0, done.err
        with Image.open(tmp_path / "o.png") as image:
            return done, json.loads(done.out)["denoise"], np.asarray(image).copy()

    done, chosen, auto = run()
    assert 0.2 < chosen <= 0.5
    assert f"denoise {chosen:g} (JPEG quality 40)" in done.err
    _, _, same = run("--denoise", chosen)
    assert np.array_equal(auto, same)
    drier = min(DRIEST, FIDELITY_PER_DENOISE * chosen)
    assert json.loads(done.out)["fidelity"] == pytest.approx(drier)
    assert np.array_equal(auto, run("--fidelity", drier)[2])
    full, _, sampled = run("--fidelity", 0)
    assert json.loads(full.out)["fidelity"] == 0
    assert not np.array_equal(auto, sampled)
    strong, _, _ = run("--denoise", 1)
    assert json.loads(strong.out)["fidelity"] == DRIEST
    assert json.loads(strong.out)["calls"] > 0  # still diffusion
    silent, zero, clean = run("--denoise", 0)
    assert json.loads(silent.out)["fidelity"] == 0
    assert zero == 0
    assert "denoise" not in silent.err
    assert not np.array_equal(auto, clean)


def test_a_network_that_cannot_restore_says_so(yoda, tmp_path, tiny_checkpoint):
    picture = save_photo(tmp_path / "in.png", 20, 20)
    for value, message in (("0.5", "clean pictures only"), ("2", "give auto or 0 … 1"),
                           ("x", "'x' is not allowed"), ("nan", "give auto or 0 … 1")):  # fmt: skip
        done = yoda("upscale", picture, "-m", tiny_checkpoint, "--denoise", value)
        assert (done.code, message in done.err) == (2, True), done.err
    assert yoda("upscale", picture, "-m", tiny_checkpoint, "--denoise", "auto").code == 0
