"""Bicubic resizing in MATLAB's convention."""

import time

import numpy as np
import pytest
import torch
from PIL import Image

from yoda_cli.images.resize import _taps, imresize, shrink


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (1, 5000), (64, 48)])
def test_a_constant_stays_constant(size):
    x = torch.full((1, 3, *size), 0.3, dtype=torch.float64)
    for scale in (4, 0.25, 1.7):
        assert torch.allclose(imresize(x, scale=scale), torch.tensor(0.3, dtype=torch.float64))


def test_reduction_agrees_with_pillow_away_from_the_border():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (128, 96, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).resize((24, 32), Image.Resampling.BICUBIC))
    ours = imresize(torch.from_numpy(pixels).permute(2, 0, 1)[None].double(), scale=0.25)
    ours = ours.round().clamp(0, 255)[0].permute(1, 2, 0).numpy()
    difference = np.abs(ours - theirs.astype(float))[3:-3, 3:-3]
    assert difference.max() <= 1


def test_enlargement_agrees_with_torch_away_from_the_border_after_its_other_kernel():
    # A straight ramp is reproduced by any cubic kernel; only the grid can be wrong.
    ramp = torch.arange(32, dtype=torch.float64).expand(1, 1, 32, 32)
    up = imresize(ramp, scale=4)
    expected = (torch.arange(128, dtype=torch.float64) + 0.5) / 4 - 0.5
    assert torch.allclose(up[0, 0, 64, 16:-16], expected[16:-16], atol=1e-9)


def test_the_kernel_is_keys_with_a_half():
    impulse = torch.zeros(1, 1, 1, 9, dtype=torch.float64)
    impulse[..., 4] = 1
    up = imresize(impulse, (1, 18))[0, 0, 0]
    # Centres of the doubled grid lie 1/4 and 3/4 off: Keys' cubic at 0.25, 0.75, 1.25, 1.75.
    expected = [0.8671875, 0.2265625, -0.0703125, -0.0234375]
    assert torch.allclose(up[9:13], torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def test_edges_are_mirrored():
    x = torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]], dtype=torch.float64)
    mirrored = torch.tensor([[[[2.0, 1, 0, 0, 1, 2, 3, 3, 2, 1]]]], dtype=torch.float64)
    assert torch.allclose(imresize(x, (1, 8)), imresize(mirrored, (1, 20))[..., 6:14])


def test_size_and_scale_agree_and_one_of_them_is_needed():
    x = torch.rand(1, 3, 12, 20)
    assert torch.equal(imresize(x, (48, 80)), imresize(x, scale=4))
    with pytest.raises(ValueError, match="size or a scale"):
        imresize(x)


def test_eight_bit_pictures_stay_eight_bit():
    x = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    down = imresize(x, scale=0.25)
    assert down.dtype == torch.uint8
    exact = imresize(x.double(), scale=0.25)
    assert (down.double() - exact).abs().max() < 2


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (17, 30)])
def test_a_whole_factor_gives_what_gathering_every_tap_gives(factor, shape):
    x = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = x
    for dim in (2, 3):
        index, weight = _taps(expected.shape[dim], expected.shape[dim] * factor, factor)
        gathered = expected.movedim(dim, -1)[..., torch.from_numpy(index)] * torch.from_numpy(
            weight
        )
        expected = gathered.sum(-1).movedim(-1, dim)
    assert torch.allclose(imresize(x, scale=factor), expected, rtol=0, atol=1e-12)


def test_making_a_picture_narrower_takes_about_the_time_of_making_it_lower():
    """Pixels were gathered one by one along rows: a picture of 16384² took a minute."""

    def seconds(picture, size):
        def once():
            began = time.process_time()
            imresize(picture, size)
            return time.process_time() - began

        return min(once() for _ in range(3))

    wide = torch.rand(1, 3, 256, 8192)
    narrower = seconds(wide, (256, 82))
    lower = seconds(wide.transpose(-1, -2).contiguous(), (82, 256))
    assert narrower < 4 * lower


def test_grey_shown_as_colour_is_reduced_once():
    grey = torch.randint(0, 256, (1, 1, 60, 50), dtype=torch.uint8)
    reduced = shrink(grey.expand(1, 3, -1, -1), (9, 8), together=400)
    assert reduced.stride(1) == 0
    assert torch.equal(reduced, shrink(grey.repeat(1, 3, 1, 1), (9, 8), together=400))
