"""Training on the sampler's own states, and the term that asks for texture there."""

import contextlib
from dataclasses import replace

import pytest
import torch
from fakes import photo
from test_train import CPU, OPTIONS, RECIPE

from yoda_cli import texture
from yoda_cli.backbones import Condition
from yoda_cli.config import TrainOptions
from yoda_cli.data import Batch
from yoda_cli.diffusion import ddim_step, make_schedule
from yoda_cli.objective import losses
from yoda_cli.texture import texture_loss
from yoda_cli.train import make_run

SAMPLED = replace(OPTIONS, states="sampled", chains=(3,), texture_weight=2.0)


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


class Told:
    """A backbone that is told what to put out, and remembers what it was shown."""

    scale, stride, prediction = 4, 1, "x0"
    schedule = make_schedule("cosine", 50)

    def __init__(self, offset):
        self.offset, self.shown, self.truth = offset, [], None

    def encode(self, lr, strength):
        up = torch.nn.functional.interpolate(lr, scale_factor=4)
        return Condition(torch.zeros_like(up), {"up": up})

    def to_z(self, hr, condition):
        self.truth = hr - condition.maps["up"]
        return self.truth

    def decode(self, z_0, condition):
        return z_0 + condition.maps["up"]

    def denoise(self, z_t, t, condition, mask):
        self.shown.append((int(t[0]), z_t, mask))
        return self.truth + self.offset


def batch_of(size=64):
    hr = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(4))
    lr = torch.nn.functional.avg_pool2d(hr, 4)
    return Batch(hr=hr, lr=lr, maps={}, strength=torch.zeros(2))


def test_each_state_is_what_the_sampler_made_of_the_estimate_before():
    options = replace(SAMPLED, attention={"uniform": 1.0})
    net, generator = Told(0.25), torch.Generator().manual_seed(0)
    terms = losses(net, batch_of(), options, generator, contextlib.nullcontext)
    assert float(terms["diffusion"]) == pytest.approx(0.25**2)
    assert float(terms["texture"]) == pytest.approx(0.0, abs=1e-6)  # an offset is no texture
    times = [t for t, _, _ in net.shown]
    assert times == [50, 34, 17]
    for (t, z_t, mask), (s, z_s, _) in zip(net.shown, net.shown[1:], strict=False):
        assert mask.all()
        expected = ddim_step(net.schedule, z_t, net.truth + 0.25, t, s, torch.zeros(()))
        assert torch.allclose(z_s, expected, atol=1e-5)


def test_pixels_outside_the_mask_hold_the_noised_lr_and_count_for_nothing():
    options = replace(SAMPLED, attention={"constant": 1.0}, lower_bound=(0.1, 0.1))
    net, generator = Told(0.5), torch.Generator().manual_seed(5)
    terms = losses(net, batch_of(), options, generator, contextlib.nullcontext)
    (t, first, mask), (s, second, both) = net.shown[-2:]
    assert mask.flatten(1).all(1).tolist() == [True, False]  # the second sample starts later
    assert both.all()
    unrefined = [x[1] / net.schedule.sigma(u) for x, u in ((first, t), (second, s))]
    assert torch.allclose(unrefined[0], unrefined[1], atol=1e-5)
    assert float(terms["diffusion"]) == pytest.approx(0.25 * len(net.shown) / 3)


def test_the_gradient_reaches_the_network_and_spares_what_is_frozen():
    options = replace(SAMPLED, frozen=("encoder",), attention={"uniform": 1.0})
    run = make_run(replace(RECIPE, train=options), CPU, None)
    terms = losses(run.net, batch_of(), options, run.generator, contextlib.nullcontext)
    sum(terms.values()).backward()
    with_gradient = {n for n, p in run.net.named_parameters() if p.grad is not None}
    assert with_gradient
    assert not any(name.startswith("encoder.") for name in with_gradient)
    assert len(run.optimizer.param_groups[0]["params"]) == len(with_gradient)


@pytest.mark.parametrize(
    "wrong",
    [
        {"texture_weight": 1.0},
        {"states": "sampled", "masks": "weights"},
        {"states": "sampled", "divide_by": "crop"},
    ],
)
def test_terms_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(ValueError, match="states"):
        TrainOptions(**wrong)
