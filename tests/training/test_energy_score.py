"""Training on the sampler's own states, and the energy score that is its loss."""

import contextlib
from dataclasses import replace

import pytest
import torch
from tiny_recipe import CPU, OPTIONS, RECIPE

from yoda_cli.config import TrainOptions
from yoda_cli.diffusion.schedule import make_schedule
from yoda_cli.diffusion.steps import ddim_step
from yoda_cli.models.base import Condition
from yoda_cli.tiling.geometry import Geometry
from yoda_cli.training.data import Batch
from yoda_cli.training.energy_score import energy_score
from yoda_cli.training.loop import make_run
from yoda_cli.training.objective import losses

SAMPLED = replace(OPTIONS, states="sampled", chains=(3,), spread=1.0)


def normal(seed, level=1.0, count=8):
    return level * torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def score(first, second, truth, spread=1.0, mask=None, calls=12):
    mask = torch.ones_like(truth[:, :1]).bool() if mask is None else mask
    generator = torch.Generator().manual_seed(0)
    scores = [energy_score(first, second, truth, mask, spread, generator) for _ in range(calls)]
    return float(sum(scores)) / calls


def test_samples_as_varied_as_the_truth_score_best():
    """Neither the mean (no variance) nor too much of it: the score is proper."""
    scores = {
        level: score(normal(1, level), normal(2, level), normal(3))
        for level in (0.0, 0.5, 0.8, 1.0, 1.25, 2.0)
    }
    assert min(scores, key=scores.__getitem__) == 1.0
    assert scores[0.0] == pytest.approx(1.0, rel=0.03)  # the error's own unit
    assert scores[1.0] == pytest.approx(0.5**0.5, rel=0.03)  # √2 - √2/2


@pytest.mark.parametrize(("spread", "best"), [(0.0, 0.0), (0.8, 0.69), (1.0, 1.0)])
def test_spread_sets_how_varied_the_best_samples_are(spread, best):
    """Normal truth: √(1 + v²) - spread·v/√2 is least where v = √(s/(1 - s)), s = spread²/2."""
    levels = [best + d for d in (-0.2, 0.0, 0.2) if best + d >= 0]
    scores = {v: score(normal(1, v), normal(2, v), normal(3), spread) for v in levels}
    assert min(scores, key=scores.__getitem__) == best


def test_a_pattern_that_both_samples_share_never_pays():
    truth, grid = normal(3), torch.zeros(1, 3, 64, 64)
    grid[..., ::4, ::4] = 0.5
    first, second = normal(1, 0.7), normal(2, 0.7)
    assert score(first + grid, second + grid, truth) > score(first, second, truth)
    assert score(first + grid, second - grid, truth) < score(first + grid, second + grid, truth)


def test_what_lies_outside_the_mask_counts_for_nothing():
    truth, first, second = normal(3), normal(1), normal(2)
    mask = torch.zeros(8, 1, 64, 64).bool()
    mask[..., :32] = True
    whole = score(first, second, truth)
    half = score(first, second, truth, mask=mask)
    assert half == pytest.approx(whole, rel=0.05)
    changed = [torch.where(mask, x, 100 * x) for x in (first, second, truth)]
    assert score(*changed, mask=mask) == half
    assert score(first, second, truth, mask=mask & False) == 0


def test_one_step_of_noise_learns_its_level():
    """From a level that is too low the gradient raises it to the truth's, not beyond."""
    level = torch.tensor(0.1, requires_grad=True)
    optimizer = torch.optim.Adam([level], lr=0.02)
    generator = torch.Generator().manual_seed(5)
    mask = torch.ones(4, 1, 32, 32).bool()
    for _ in range(250):
        first, second, truth = torch.randn(3, 4, 3, 32, 32, generator=generator).unbind()
        optimizer.zero_grad()
        energy_score(level * first, level * second, truth, mask, 1.0, generator).backward()
        optimizer.step()
    assert level.item() == pytest.approx(1.0, abs=0.12)


class Told:
    """A backbone that is told what to put out, and remembers what it was shown."""

    prediction = "x0"
    geometry = Geometry(scale=4, stride=1, halo=0, plan_halo=0, pixel_bytes=1)
    schedule = make_schedule("cosine", 50)
    takes_gains = False

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
        return self.truth.repeat(len(z_t) // len(self.truth), 1, 1, 1) + self.offset


def batch_of(size=64):
    hr = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(4))
    lr = torch.nn.functional.avg_pool2d(hr, 4)
    return Batch(hr=hr, lr=lr, maps={}, strength=torch.zeros(2))


def test_each_state_is_what_the_sampler_made_of_the_estimate_before():
    options = replace(SAMPLED, attention={"uniform": 1.0})
    net, generator = Told(0.25), torch.Generator().manual_seed(0)
    terms = losses(net, batch_of(), options, generator, contextlib.nullcontext)
    assert float(terms["energy"]) == pytest.approx(0.25, rel=0.01)  # both samples are alike
    times = [t for t, _, _ in net.shown]
    assert times == [50, 34, 17]
    for (t, z_t, mask), (s, z_s, _) in zip(net.shown, net.shown[1:], strict=False):
        assert mask.all()
        truth = net.truth.repeat(2, 1, 1, 1)
        expected = ddim_step(net.schedule, z_t, truth + 0.25, t, s, torch.zeros(()))
        assert torch.allclose(z_s, expected, atol=1e-5)
    first, second = net.shown[0][1].chunk(2)
    assert (first - second).std() == pytest.approx(2**0.5, rel=0.05)  # of noises of their own


def test_the_texture_term_sees_detail_and_no_offset():
    options = replace(SAMPLED, attention={"uniform": 1.0}, texture_weight=2.0)
    generator = torch.Generator().manual_seed(0)
    offset = losses(Told(0.25), batch_of(), options, generator, contextlib.nullcontext)
    assert float(offset["texture"]) == pytest.approx(0.0, abs=1e-5)
    noise = Told(0.25 * torch.randn(4, 3, 64, 64, generator=generator))
    assert (
        float(losses(noise, batch_of(), options, generator, contextlib.nullcontext)["texture"])
        > 0.02
    )
    alone = replace(options, texture_weight=0.0)
    assert set(losses(noise, batch_of(), alone, generator, contextlib.nullcontext)) == {"energy"}


def test_pixels_outside_the_mask_hold_the_noised_lr_and_count_for_nothing():
    options = replace(SAMPLED, attention={"constant": 1.0}, lower_bound=(0.1, 0.1))
    net, generator = Told(0.5), torch.Generator().manual_seed(5)
    terms = losses(net, batch_of(), options, generator, contextlib.nullcontext)
    (t, first, mask), (s, second, both) = net.shown[-2:]
    # The second crop starts later, in both of its runs.
    assert mask.flatten(1).all(1).tolist() == [True, False, True, False]
    assert both.all()
    for crop in (1, 3):
        unrefined = [x[crop] / net.schedule.sigma(u) for x, u in ((first, t), (second, s))]
        assert torch.allclose(unrefined[0], unrefined[1], atol=1e-5)
    assert float(terms["energy"]) == pytest.approx(0.5 * len(net.shown) / 3, rel=0.01)


def test_the_gradient_reaches_the_network_and_spares_what_is_frozen():
    options = replace(SAMPLED, frozen=("encoder",), attention={"uniform": 1.0})
    run = make_run(replace(RECIPE, train=options), CPU, None)
    terms = losses(run.net, batch_of(), options, run.generator, contextlib.nullcontext)
    sum(terms.values()).backward()
    with_gradient = {n for n, p in run.net.named_parameters() if p.grad is not None}
    assert with_gradient
    assert not any(name.startswith("encoder.") for name in with_gradient)
    assert len(run.optimizers.adam.param_groups[0]["params"]) == len(with_gradient)


@pytest.mark.parametrize(
    "wrong",
    [
        {"spread": 1.0},
        {"texture_weight": 1.0},
        {"states": "sampled", "masks": "weights"},
        {"states": "sampled", "divide_by": "crop"},
    ],
)
def test_terms_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(ValueError, match="states"):
        TrainOptions(**wrong)
