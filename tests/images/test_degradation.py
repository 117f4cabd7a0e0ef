"""Estimating how damaged a picture is from its pixels, and what a person is told."""

import io
import json

import numpy as np
import pytest
import torch
from fakes import photo, save_photo
from PIL import Image

from yoda_cli.evaluation.datasets import SAMPLE
from yoda_cli.images import read_picture
from yoda_cli.images.degradation import ACROSS, WINDOW, _starts, estimate
from yoda_cli.images.resize import imresize
from yoda_cli.models.model import DRIEST
from yoda_cli.training.drawings import draw


def smooth(height=128, width=160):
    """A picture without texture, at 8 bits."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    image = torch.stack([x, y, (x + y) / 2])[None] * 0.6 + 0.2
    return (image * 255).round() / 255


def noisy(image, sigma):
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return ((image + sigma / 255 * noise).clamp(0, 1) * 255).round() / 255


def as_jpeg(image, quality):
    pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)[None].float() / 255


def clean(height=96, width=128):
    """A photograph reduced well."""
    return (imresize(photo(4 * height, 4 * width), scale=1 / 4).clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize("path", sorted(SAMPLE.iterdir()), ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [(1, 1), (23, 128), (64, 64), (96, 128), (25, 60)])
def test_clean_photographs_of_any_size_get_light_treatment_at_most(path, size):
    hr = read_picture(path).rgb
    height, width = (min(4 * n, m // 4 * 4) for n, m in zip(size, hr.shape[-2:], strict=True))
    lr = imresize(hr[..., :height, :width], scale=1 / 4).clamp(0, 1)
    assert estimate((lr * 255).round() / 255) < 0.2


@pytest.mark.parametrize("seed", range(4))
def test_clean_drawings_are_left_alone(seed):
    """Sharp edges and flat areas are no damage."""
    drawn = torch.from_numpy(draw(384, [], np.random.default_rng(seed)).copy())
    lr = imresize(drawn.permute(2, 0, 1)[None], scale=1 / 4)
    assert estimate(lr) < 0.2


def test_flat_pictures_are_left_alone():
    assert estimate(torch.full((1, 3, 80, 80), 0.3)) == 0
    assert estimate(torch.zeros(1, 3, 80, 80)) == 0


def test_noise_and_compression_are_seen_in_the_pixels():
    light, heavy = (estimate(noisy(clean(), sigma)) for sigma in (8, 25))
    assert 0 < light < heavy <= 1
    assert estimate(as_jpeg(clean(), 20)) > 0.1


def test_bytes_and_floats_are_judged_alike():
    image = noisy(clean(), 12)
    assert estimate((image * 255).round().byte()) == pytest.approx(estimate(image), abs=0.011)


def test_large_pictures_are_judged_by_windows_from_edge_to_edge():
    for length in (10, WINDOW, WINDOW + 1, 200, 5000):
        starts = _starts(length)
        assert len(starts) <= ACROSS
        assert starts[0] == 0
        assert starts[-1] == max(length - WINDOW, 0)


PER_STRENGTH = 0.9  # so that a strength of 1 meets the bound


@pytest.fixture(scope="module")
def restorer(tiny_checkpoint, tmp_path_factory):
    """The tiny network with a card that says it was trained on degraded pictures."""
    from torch import nn

    from yoda_cli.models.checkpoint import load_checkpoint, save_checkpoint

    net, header = load_checkpoint(tiny_checkpoint)
    assert isinstance(net, nn.Module)
    defaults = {**header.card.get("defaults", {}), "damaged_fidelity": PER_STRENGTH}
    card = {**header.card, "training": {"options": {"degrade": 0.5}}, "defaults": defaults}
    path = tmp_path_factory.mktemp("restorer") / "restorer.safetensors"
    save_checkpoint(path, backbone="srdiff", net=header.net, state=net.state_dict(), card=card)
    return path


def test_auto_says_what_it_chose_and_a_number_decides(yoda, tmp_path, restorer):
    pixels = (noisy(photo(40, 40), 12)[0].permute(1, 2, 0) * 255).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "in.jpg", quality=40)
    options = ("-m", restorer, "--precision", "fp32", "--json", "--overwrite")

    def run(*more):
        done = yoda("upscale", tmp_path / "in.jpg", "-o", tmp_path / "o.png", *options, *more)
        assert done.code == 0, done.err
        with Image.open(tmp_path / "o.png") as image:
            return done, json.loads(done.out)["denoise"], np.asarray(image).copy()

    done, chosen, auto = run()
    assert 0 < chosen <= 1
    assert f"denoise {chosen:g} (estimated from the pixels)" in done.err
    _, _, same = run("--denoise", chosen)
    assert np.array_equal(auto, same)
    drier = min(DRIEST, PER_STRENGTH * chosen)
    assert json.loads(done.out)["fidelity"] == pytest.approx(drier)
    assert np.array_equal(auto, run("--fidelity", drier)[2])
    full, _, sampled = run("--fidelity", 0)
    assert json.loads(full.out)["fidelity"] == 0
    assert not np.array_equal(auto, sampled)
    strong, _, _ = run("--denoise", 1)
    assert json.loads(strong.out)["fidelity"] == min(DRIEST, PER_STRENGTH)
    assert json.loads(strong.out)["calls"] > 0  # still diffusion
    silent, zero, clean = run("--denoise", 0)
    assert json.loads(silent.out)["fidelity"] == 0
    assert zero == 0
    assert "estimated" not in silent.err
    assert not np.array_equal(auto, clean)


def test_a_network_that_cannot_restore_says_so(yoda, tmp_path, tiny_checkpoint):
    picture = save_photo(tmp_path / "in.png", 20, 20)
    for value, message in (("0.5", "clean pictures only"), ("2", "give auto or 0 … 1"),
                           ("x", "'x' is not allowed"), ("strong", "clean pictures only"),
                           ("nan", "give auto or 0 … 1")):  # fmt: skip
        done = yoda("upscale", picture, "-m", tiny_checkpoint, "--denoise", value)
        assert (done.code, message in done.err) == (2, True), done.err
    assert yoda("upscale", picture, "-m", tiny_checkpoint, "--denoise", "auto").code == 0
