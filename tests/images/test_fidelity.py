"""The curve between a sample and its base: ends, order, and what is drawn back first."""

import pytest
import torch

from yoda_cli.images.fidelity import LIMIT, draw_towards_base


def pictures(amplitude=0.1):
    torch.manual_seed(0)
    base = 0.3 + 0.4 * torch.rand(2, 3, 24, 32)
    departure = torch.randn(base.shape) * amplitude
    departure[..., 16:] *= 0.05
    return base + departure, base


def test_the_ends_of_the_curve_are_the_sample_and_the_base():
    sample, base = pictures()
    assert torch.allclose(draw_towards_base(sample, base, 1e-6), sample, atol=1e-6)
    assert torch.allclose(draw_towards_base(sample, base, 1 - 1e-9), base, atol=1e-4)


def test_every_pixel_moves_towards_the_base_as_fidelity_grows():
    sample, base = pictures()
    before = (sample - base).abs()
    for fidelity in (0.01, 0.05, 0.2, 0.5, 0.8, 0.99):
        now = (draw_towards_base(sample, base, fidelity) - base).abs()
        assert (now <= before + 1e-7).all()
        before = now


def test_small_departures_are_kept_and_large_ones_go_to_the_root_of_the_limit():
    sample, base = pictures()
    result = draw_towards_base(sample, base, 0.2)
    assert torch.allclose(result[..., 20:], sample[..., 20:], atol=1e-6)
    flat = torch.full((1, 3, 16, 16), 0.5)
    drawn = draw_towards_base(flat + 0.16, flat, 0.2) - flat
    assert drawn == pytest.approx(torch.full_like(drawn, (0.16 * LIMIT * 4) ** 0.5), abs=1e-6)


def test_the_inputs_are_left_as_they_were():
    sample, base = pictures()
    copies = sample.clone(), base.clone()
    draw_towards_base(sample, base, 0.5)
    assert torch.equal(sample, copies[0])
    assert torch.equal(base, copies[1])


def test_equal_pictures_stay_and_no_number_is_lost():
    _, base = pictures()
    assert torch.equal(draw_towards_base(base, base, 0.5), base)
