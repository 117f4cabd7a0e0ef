"""Metrics against independent implementations and known cases."""

import math

import numpy as np
import pytest
import torch
from fakes import photo
from skimage import color
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from yoda_cli.metrics import (
    colour_error,
    luma,
    psnr,
    quantise,
    ssim,
    texture_distance,
)
from yoda_cli.resampling import imresize


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
