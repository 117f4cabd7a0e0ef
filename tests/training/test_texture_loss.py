"""The texture term of training: texture counts, its place does not, a grid is none."""

import pytest
import torch
from fakes import photo

from yoda_cli.training import texture_loss as texture
from yoda_cli.training.texture_loss import texture_loss


def distance(image, target, period=4, calls=20):
    generator = torch.Generator().manual_seed(0)
    return sum(float(texture_loss(image, target, period, generator)) for _ in range(calls)) / calls


def noise(seed, size=128):
    return 0.5 + 0.1 * torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_the_same_texture_elsewhere_in_its_block_costs_little_and_blur_much():
    target = photo(128, 128)
    assert distance(target, target) == 0
    blurred = torch.nn.functional.avg_pool2d(target, 5, 1, 2, count_include_pad=False)
    moved = target.roll((4, 8), (-2, -1))  # whole periods
    assert distance(moved, target) < 0.4 * distance(blurred, target)
    assert distance(noise(1), noise(2)) < 0.2 * distance(torch.full_like(target, 0.5), noise(2))


def test_a_grid_is_no_texture():
    """Dots at every fourth pixel, as strong as noise, are told by their phase."""
    target = noise(0)
    dots = torch.zeros_like(target)
    dots[..., ::4, ::4] = 1.0
    dots = 0.5 + (dots - dots.mean()) * 0.1 / dots.std()
    assert distance(dots, target) > 1.5 * distance(dots, target, period=1)
    assert distance(dots, target) > 3 * distance(noise(3), target)


@pytest.mark.slow
def test_a_weave_is_told_by_waves(monkeypatch):
    """A band of noise moved to a wavelength of three pixels: more unlike than other noise is."""
    flat = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(5))
    spectrum = torch.fft.rfft2(flat)
    rows, columns = torch.fft.fftfreq(128).abs().view(-1, 1), torch.fft.rfftfreq(128)

    def band(centre, width):
        return torch.fft.irfft2(spectrum * ((columns - centre).abs() < width) * (rows < 0.15))

    taken, wave = band(1 / 4, 0.05), band(1 / 3, 0.02)
    woven = 0.5 + 0.05 * (flat - taken + wave / wave.std() * taken.std())
    target = 0.5 + 0.05 * flat
    other = 0.5 + (noise(6) - 0.5) / 2

    def contrast():
        return distance(woven, target, calls=40) / distance(other, target, calls=40)

    with monkeypatch.context() as patch:
        patch.setattr(texture, "_random_waves", lambda g: texture._random_patches(7, g))
        patches = contrast()
    waves = texture._random_waves
    monkeypatch.setattr(texture, "_random_patches", lambda side, g: waves(g))
    assert contrast() > 1.2 * patches


def test_what_luma_does_not_see_counts_too(monkeypatch):
    """Green and magenta in turn at every fourth pixel: nothing on luma, nothing on average."""
    target = noise(0)
    colour = torch.tensor([-0.587, 0.299 + 0.114, -0.587]).view(1, 3, 1, 1)
    signs = torch.ones(1, 1, 32, 32)
    signs[..., ::2, :] *= -1
    signs[..., ::2] *= -1
    dots = torch.zeros_like(target)
    dots[..., ::4, ::4] = 0.3 * signs * colour
    seen = distance(target + dots, target)
    monkeypatch.setattr(texture, "COLOUR_SPREAD", 0.0)
    assert seen > 5 * distance(target + dots, target)


def test_it_is_in_the_images_unit_and_its_gradient_points_to_the_texture():
    flat, target = torch.full((1, 3, 64, 64), 0.5), noise(0, 64)
    assert distance(flat, 0.5 + 2 * (target - 0.5)) == pytest.approx(2 * distance(flat, target))
    start = noise(1, 64).sub(0.5).mul(0.2).add(0.5)
    image = start.clone().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam([image], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        texture_loss(image, target, 4, generator).backward()
        optimizer.step()
    assert distance(image.detach(), target) < 0.4 * distance(start, target)
