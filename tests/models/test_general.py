"""The checkpoint that comes with the package: better than bicubic, textured like a photograph."""

from pathlib import Path

import pytest
import torch
from fakes import enlarge

from yoda_cli.config import UpscaleOptions
from yoda_cli.evaluation.metrics import (
    colour_error,
    psnr,
    quantise,
    ssim,
    texture_distance,
)
from yoda_cli.images import read_picture
from yoda_cli.images.resize import imresize
from yoda_cli.models.checkpoint import read_header
from yoda_cli.models.loading import find_model

PICTURES = sorted((Path(__file__).parents[1] / "data" / "pictures").glob("*.png"))


@pytest.fixture(scope="module")
def general():
    return find_model(UpscaleOptions(device="cpu", precision="fp32"))


@pytest.fixture(scope="module")
def results(general):
    rows = []
    for path in PICTURES:
        hr = read_picture(path).rgb
        lr = quantise(imresize(hr, scale=0.25))
        sr = quantise(enlarge(lr, general, UpscaleOptions()).image)
        rows.append((hr, quantise(imresize(lr, scale=4)), sr))
    return rows


def mean(values):
    return sum(values) / len(values)


def gain(results, measure):
    """Ours minus bicubic's, mean over the pictures."""
    ours = [measure(sr, hr, border=4) for hr, _, sr in results]
    theirs = [measure(bicubic, hr, border=4) for hr, bicubic, _ in results]
    return mean(ours) - mean(theirs)


def test_the_default_is_nearer_to_the_truth_than_bicubic(results):
    assert gain(results, psnr) > 0.5
    assert gain(results, ssim) > 0


def test_the_default_has_the_texture_of_a_photograph(results):
    assert gain(results, texture_distance) < -0.2


def test_colours_do_not_shift(results):
    assert max(colour_error(sr, hr) for hr, _, sr in results) < 2


def test_the_base_is_smoother_and_nearer_still(general, results):
    # One step from a state without attention lands on the regression base.
    hr, bicubic, sr = results[0]
    lr = quantise(imresize(hr, scale=0.25))
    with torch.no_grad():
        condition = general.backbone.encode(lr)
        base = general.backbone.decode(condition.z_lr, condition).clamp(0, 1)
    assert psnr(base, hr, border=4) > max(psnr(sr, hr, border=4), psnr(bicubic, hr, border=4))
    assert texture_distance(base, hr, border=4) > texture_distance(sr, hr, border=4)


def test_every_tile_size_gives_nearly_the_same_picture(general):
    lr = quantise(imresize(read_picture(PICTURES[0]).rgb, scale=0.5))  # 96 → 384
    whole = enlarge(lr, general, UpscaleOptions(tile=0, steps=4)).image
    for tile in (128, 192):
        tiled = enlarge(lr, general, UpscaleOptions(tile=tile, steps=4)).image
        assert psnr(tiled, whole, on_luma=False) > 45


@pytest.mark.slow
def test_half_precision_gives_nearly_the_same_picture(general):
    halved = find_model(UpscaleOptions(device="cpu", precision="bf16"))
    lr = quantise(imresize(read_picture(PICTURES[0]).rgb, scale=0.25))
    full = enlarge(lr, general, UpscaleOptions()).image
    half = enlarge(lr, halved, UpscaleOptions()).image
    assert psnr(half, full, on_luma=False) > 35


def samples_of(card):
    """Crops seen, in this run and in those that it went on from."""
    training = card["training"]
    earlier = card.get("before") or {"training": training.get("before")}
    return training["samples"] + (samples_of(earlier) if earlier["training"] else 0)


def test_its_card_says_what_it_is():
    from yoda_cli.weights import load_registry

    card = read_header(load_registry().model("general").path).card
    assert card["licence"].startswith("Apache-2.0")
    assert "photographs" in card["data"]
    assert samples_of(card) > 50_000
    assert "Xintao Wang" in card["restorer"]["distilled_from"]
    assert {"attention", "lower_bound", "steps", "sampler"} <= set(card["defaults"])


@pytest.fixture(scope="module")
def face():
    return find_model(UpscaleOptions(model="face", device="cpu", precision="fp32"))


def test_face_is_ours_says_so_and_is_no_general(face):
    card = face.card
    assert "never published" in card["about"]
    assert "synthetic" in card["data"]
    assert samples_of(card) > 100_000
    assert card["measured"]["psnr_gain"] > 1.5
    assert card["measured"]["texture"] < 0.4
    assert face.can_denoise


def test_face_enlarges_photographs_too(face, results):
    hr, bicubic, _ = results[0]
    lr = quantise(imresize(hr, scale=0.25))
    sr = quantise(enlarge(lr, face, UpscaleOptions()).image)
    assert psnr(sr, hr, border=4) > psnr(bicubic, hr, border=4) - 1
    assert texture_distance(sr, hr, border=4) < texture_distance(bicubic, hr, border=4)


def test_face_restores_noise_when_it_is_told_of_it(face, results):
    hr = results[0][0]
    lr = imresize(hr, scale=0.25)
    noise = torch.randn(lr.shape, generator=torch.Generator().manual_seed(0))
    noisy = quantise((lr + 10 / 255 * noise).clamp(0, 1))
    blind = enlarge(noisy, face, UpscaleOptions(denoise=0.0)).image
    told = enlarge(noisy, face, UpscaleOptions(denoise=0.72)).image
    assert psnr(told, hr, border=4) > psnr(blind, hr, border=4) + 1
