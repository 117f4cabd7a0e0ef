"""Metrics against independent implementations and known cases."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import one_by_default
from fakes import photo
from skimage import color
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from yoda_cli.errors import WeightsError
from yoda_cli.evaluation.metrics import (
    colour_error,
    detail_ratio,
    grid,
    lr_consistency,
    luma,
    psnr,
    quantise,
    seam,
    ssim,
    texture_distance,
    weave,
)
from yoda_cli.evaluation.metrics import niqe as niqe_module
from yoda_cli.evaluation.metrics.perceptual import load_dists, load_lpips
from yoda_cli.images import read_picture
from yoda_cli.images.resize import imresize


def pair():
    hr = quantise(photo(96, 112, seed=4))
    sr = quantise(hr + 0.05 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0)))
    return sr, hr


def as_numpy(image):
    return image[0].permute(1, 2, 0).double().numpy()


def test_luma_is_that_of_ycbcr():
    image = photo(5, 7)
    theirs = color.rgb2ycbcr(as_numpy(image))[..., 0] / 255
    assert np.allclose(luma(image)[0, 0].numpy(), theirs, atol=1e-6)


@pytest.mark.parametrize("border", [0, 4])
def test_psnr_agrees_with_scikit_image(border):
    sr, hr = pair()
    part = slice(border, -border or None)
    x, y = (luma(i)[0, 0, part, part].numpy() for i in (sr, hr))
    theirs = peak_signal_noise_ratio(y, x, data_range=1.0)
    assert psnr(sr, hr, border=border) == pytest.approx(theirs, abs=1e-6)
    rgb = peak_signal_noise_ratio(as_numpy(hr), as_numpy(sr), data_range=1.0)
    assert psnr(sr, hr, on_luma=False) == pytest.approx(rgb, abs=1e-6)
    assert psnr(hr, hr) == math.inf


def test_ssim_agrees_with_scikit_image():
    sr, hr = pair()
    theirs = structural_similarity(
        luma(hr)[0, 0].numpy(),
        luma(sr)[0, 0].numpy(),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(sr, hr) == pytest.approx(theirs, abs=1e-4)
    assert ssim(hr, hr) == pytest.approx(1.0)


def reference_texture(sr, hr, border):
    """The definition, written out slowly with NumPy and SciPy."""
    from scipy.ndimage import gaussian_filter

    axes = np.random.default_rng(0).normal(size=(25, 32))
    axes /= np.linalg.norm(axes, axis=0)
    highs = []
    for image in (sr, hr):
        y = luma(image)[0, 0].numpy()
        y = y[border : y.shape[0] - border, border : y.shape[1] - border]
        highs.append(y - gaussian_filter(y, 1.5, mode="mirror", truncate=4.0))
    distance = total = 0.0
    for top in range(0, highs[0].shape[0] - 31, 32):
        for left in range(0, highs[0].shape[1] - 31, 32):
            blocks = [h[top : top + 32, left : left + 32] for h in highs]
            patches = [
                np.stack([b[i : i + 5, j : j + 5].ravel() for i in range(28) for j in range(28)])
                for b in blocks
            ]
            x, y = (np.sort(p @ axes, axis=0) for p in patches)
            distance += np.abs(x - y).mean()
            total += np.abs(y).mean()
    return distance / total


def test_texture_distance_is_its_definition():
    sr, hr = pair()
    expected = reference_texture(sr, hr, 4)
    assert texture_distance(sr, hr, border=4) == pytest.approx(expected, rel=1e-6)


def test_texture_distance_is_zero_for_the_same_and_large_for_blur():
    hr = quantise(photo(128, 128))
    blurred = imresize(imresize(hr, scale=0.25), scale=4)
    assert texture_distance(hr, hr) == 0
    assert 0.5 < texture_distance(blurred, hr) < 1
    assert math.isnan(texture_distance(hr[..., :20, :20], hr[..., :20, :20]))


def test_colour_error_is_the_worst_channels_mean_in_255ths():
    hr = photo(8, 8)
    shifted = hr.clone()
    shifted[:, 1] += 2 / 255
    assert colour_error(shifted, hr) == pytest.approx(2.0, abs=1e-3)


def test_quantising_is_what_a_file_holds():
    image = torch.tensor([-1.0, 0.5, 0.501, 2.0])
    assert torch.equal(quantise(image) * 255, torch.tensor([0.0, 128.0, 128.0, 255.0]))


@pytest.mark.parametrize("border", [0, 4])
def test_rgb_ssim_agrees_with_scikit_image(border):
    sr, hr = pair()
    part = slice(border, -border or None)
    theirs, maps = structural_similarity(
        as_numpy(hr)[part, part],
        as_numpy(sr)[part, part],
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
        full=True,
    )
    valid = maps[5:-5, 5:-5].mean()
    assert ssim(sr, hr, border=border, on_luma=False) == pytest.approx(valid, abs=1e-6)
    assert abs(theirs - valid) < 0.01
    assert math.isnan(ssim(sr[..., :10, :], hr[..., :10, :]))


def test_detail_ratio_follows_the_high_band():
    _, hr = pair()
    assert detail_ratio(hr, hr) == pytest.approx(1)
    mean = hr.mean()
    assert detail_ratio(mean + 0.5 * (hr - mean), hr) == pytest.approx(0.5, abs=1e-6)
    assert detail_ratio(imresize(imresize(hr, scale=0.25), scale=4), hr) < 0.8
    assert math.isnan(detail_ratio(hr, torch.full_like(hr, 0.5)))


def test_lr_consistency_is_the_psnr_of_the_reduced_result():
    _, hr = pair()
    lr = imresize(hr, scale=0.25)
    assert lr_consistency(hr, lr) == math.inf
    assert lr_consistency(hr, lr + 0.01) == pytest.approx(40, abs=0.01)


def test_a_seam_is_found_where_it_is():
    image = 0.5 + 0.1 * torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    assert abs(seam(image, [32], [48])) < 0.25
    image[..., 48:] += 0.5
    assert seam(image, [32], [48]) > 1
    assert seam(image, [32], [24]) < 0.1
    assert math.isnan(seam(image, [], []))


LPIPS_NETS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """Random weights in torchvision's files."""
    import torchvision

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbones")
    for name in LPIPS_NETS.values():
        net = getattr(torchvision.models, name)(weights=None)
        kept = {k: v for k, v in net.state_dict().items() if k.startswith("features")}
        torch.save(kept, folder / f"{name}.pth")
    return folder


@pytest.mark.parametrize("net", one_by_default(LPIPS_NETS))
def test_lpips_agrees_with_torchmetrics(net, backbones, monkeypatch):
    from torchmetrics.functional.image import lpips as theirs

    path = backbones / f"{LPIPS_NETS[net]}.pth"
    state = {k.split(".", 1)[1]: v for k, v in torch.load(path).items()}
    reference = theirs._LPIPS(pretrained=True, net=net, pnet_rand=True).eval()
    own = reference.net.state_dict()
    parts = 2 if net == "squeeze" else 1  # "slices.0.3.squeeze.weight" against "slice1.0.weight"
    reference.net.load_state_dict({k: state[k.split(".", parts)[parts]] for k in own})
    distance = load_lpips(net, path)
    for sr, hr in (pair(), pair()[::-1], (photo(64, 80), photo(64, 80, seed=9))):
        with torch.no_grad():
            expected = float(reference(sr, hr, normalize=True))
        assert expected > 1e-4
        assert distance(sr, hr) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert distance(hr, hr) == 0


@pytest.mark.slow
def test_dists_agrees_with_torchmetrics(backbones, monkeypatch):
    import torchvision
    from torchmetrics.functional.image import dists as theirs

    def filled(weights=None):
        net = torchvision.models.vgg16(weights=None)
        net.load_state_dict(torch.load(backbones / "vgg16.pth"), strict=False)
        return net

    monkeypatch.setattr(theirs, "vgg16", filled)
    reference = theirs.DISTSNetwork().eval()
    distance = load_dists(backbones / "vgg16.pth")
    for sr, hr in (pair(), (photo(64, 80), photo(64, 80, seed=9))):
        with torch.no_grad():
            expected = float(reference(sr, hr))
        assert distance(sr, hr) == pytest.approx(expected, abs=1e-4)
    assert distance(hr, hr) == pytest.approx(0, abs=1e-6)


def test_wrong_backbones_are_said(backbones):
    with pytest.raises(WeightsError, match="no weights of vgg16"):
        load_lpips("vgg", backbones / "alexnet.pth")


def test_measures_of_libraries_are_theirs_and_a_missing_one_names_the_extra(monkeypatch):
    import sys

    from yoda_cli.evaluation.metrics import libraries

    sr, hr = photo(64, 80), photo(64, 80, seed=9)
    gmsd, jod = libraries.gmsd(), libraries.jod()
    assert gmsd(hr, hr) == pytest.approx(0, abs=1e-6)
    assert gmsd(sr, hr) > 0.05
    assert jod(hr, hr) == pytest.approx(10, abs=1e-3)
    assert jod(sr, hr) < 9
    monkeypatch.setitem(sys.modules, "piq", None)
    with pytest.raises(WeightsError, match=r"pip install .*\[metrics\]'"):
        libraries.gmsd()


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_grid_is_seen_whatever_its_period(period):
    image = photo(128, 128)
    cells = torch.zeros(1, 1, 128, 128)
    cells[..., ::period, ::period] = 1
    marked = (image + 0.02 * (cells - cells.mean())).clamp(0, 1)
    assert grid(marked) > grid(image) + 0.1
    assert grid(image) < 0.5
    assert grid(torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))) < 0.1
    assert math.isnan(grid(image[..., :63]))


@pytest.mark.parametrize("waves", [(7, 0), (0, 9), (6, -5)])
def test_a_weave_is_seen_in_flat_places_alone(waves):
    noise = torch.Generator().manual_seed(0)
    truth = 0.5 + 0.01 * torch.randn(1, 3, 256, 256, generator=noise)
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    woven = truth + 0.02 * torch.cos(2 * math.pi * (waves[0] * y + waves[1] * x) / 32)
    assert weave(woven, truth) > 4 * weave(truth, truth)
    busy = truth.clone()
    busy[..., :128, :] += 0.3 * torch.randn(1, 3, 128, 256, generator=noise)
    elsewhere = torch.where(torch.arange(256).view(-1, 1) < 128, woven, truth)
    assert weave(elsewhere, busy) < 2 * weave(truth, busy)
    assert math.isnan(weave(truth[..., :64, :64], truth[..., :64, :64]))


def test_niqe_normalises_like_scipy():
    from scipy.ndimage import correlate1d

    y = (luma(photo(96, 112, seed=4)) * 255).round()
    x = np.arange(-3, 4)
    kernel = np.exp(-(x**2) / (2 * (7 / 6) ** 2))
    kernel /= kernel.sum()

    def mean(values):
        rows = correlate1d(values, kernel, 0, mode="nearest")
        return correlate1d(rows, kernel, 1, mode="nearest")

    values = y[0, 0].numpy()
    deviation = np.sqrt(np.abs(mean(values**2) - mean(values) ** 2))
    mscn, ours = niqe_module.normalised(y)
    assert np.allclose(ours[0, 0].numpy(), deviation, atol=1e-5)
    assert np.allclose(mscn[0, 0].numpy(), (values - mean(values)) / (deviation + 1), atol=1e-5)


@pytest.mark.parametrize(("shape", "left", "right"), [(2, 1, 1), (1, 0.5, 2), (0.7, 2, 0.6)])
def test_niqe_recovers_the_distribution_it_fits(shape, left, right):
    from scipy.stats import gennorm

    halves = np.abs(gennorm.rvs(shape, size=400_000, random_state=0))
    signs = np.random.default_rng(1).random(halves.size) < left / (left + right)
    values = np.where(signs, -left * halves, right * halves)
    found = niqe_module.asymmetric_fit(values)
    assert found == pytest.approx((shape, left, right), rel=0.03)


def test_niqe_tells_natural_from_blurred_and_noisy():
    samples = Path(__file__).parents[2] / "yoda_cli" / "samples"
    hr = torch.cat([read_picture(samples / f"{n}.png").rgb for n in ("dog", "leaves")], 3)
    hr = torch.cat([hr, hr.flip(3)], 2)
    blurred = imresize(imresize(hr, scale=0.25), scale=4).clamp(0, 1)
    noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    noisy = (hr + 0.15 * noise).clamp(0, 1)
    best = niqe_module.niqe(hr)
    assert best < niqe_module.niqe(blurred)
    assert best < niqe_module.niqe(noisy)
    assert math.isnan(niqe_module.niqe(hr[..., :95, :95]))
    assert niqe_module.packaged_model().mean.shape == (36,)
    refit = niqe_module.fit([hr, hr.flip(2)], "two")
    assert refit.covariance.shape == (36, 36)
