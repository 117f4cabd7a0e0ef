"""Multi-step solvers and chains, in closed form."""

import itertools
import math

import pytest
import torch
from fakes import fake_model, plan_of

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.noise import NoiseField, make_draw
from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.diffusion.schedule import make_schedule
from yoda_cli.diffusion.steps import History, dpmpp_3m_sde_step
from yoda_cli.diffusion.timesteps import (
    CHAINS,
    leading_timesteps,
    openai_timesteps,
    trailing_timesteps,
)
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.models.base import Condition
from yoda_cli.upscaling.denoisers import TiledDenoiser

SCHEDULE = make_schedule("scaled_linear", 1000, beta_start=0.00085, beta_end=0.012)


def exact(schedule, z_t, t, s, estimate):
    """The mean of the reverse SDE (η = 1) where ẑ_0 is a known function of λ, by quadrature."""
    begin, end = schedule.half_log_snr(t), schedule.half_log_snr(s)
    at = torch.linspace(begin, end, 20001, dtype=torch.float64)
    inside = 2 * torch.exp(-2 * (end - at)) * estimate(at)
    kept = math.exp(-2 * (end - begin)) * schedule.signal(s) / schedule.signal(t)
    return kept * z_t + schedule.signal(s) * torch.trapezoid(inside, at)


def step_with_history(estimate, times, z_t):
    one = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    history = None
    values = [estimate(torch.tensor(SCHEDULE.half_log_snr(t)).double()) for t in times[:-1]]
    tensors = [v.view(1, 1, 1, 1) for v in values]
    for t, value in zip(times[:-2], tensors, strict=False):
        history = history.followed_by(value, t, one) if history else History(value, t, one)
    t, s = times[-2:]
    return dpmpp_3m_sde_step(SCHEDULE, z_t, tensors[-1], t, s, torch.zeros_like(z_t), history)


@pytest.mark.parametrize(
    ("times", "estimate"),
    [
        ([500, 400], lambda u: 0.7 + 0 * u),
        ([600, 500, 400], lambda u: 0.7 - 0.2 * u),
        ([720, 600, 500, 400], lambda u: 0.7 - 0.2 * u + 0.3 * u**2),
    ],
    ids=["constant", "line", "parabola"],
)
def test_the_third_order_solver_is_exact_for_polynomials_of_its_order(times, estimate):
    z_t = torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64)
    t, s = times[-2:]
    found = step_with_history(estimate, times, z_t)
    expected = exact(SCHEDULE, z_t, t, s, estimate)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_the_noise_of_a_step_is_what_the_marginal_asks_for():
    """A pixel whose ẑ_0 is the truth keeps the marginal's variance at every level."""
    generator = torch.Generator().manual_seed(0)

    def normal():
        return torch.randn(200_000, generator=generator, dtype=torch.float64)

    times = [1000, 700, 400, 100, 0]
    z = SCHEDULE.signal(1000) * 0.5 + SCHEDULE.sigma(1000) * normal()
    for t, s in itertools.pairwise(times):
        z = dpmpp_3m_sde_step(SCHEDULE, z, torch.full_like(z, 0.5), t, s, normal())
        assert float(z.mean()) == pytest.approx(0.5 * SCHEDULE.signal(s), abs=5e-3)
        assert float(z.std()) == pytest.approx(SCHEDULE.sigma(s), abs=5e-3)


def test_a_start_without_signal_is_finite_and_first_order():
    schedule = make_schedule("scaled_linear", 1000, beta_start=0.00085, beta_end=0.012,
                             zero_terminal_snr=True)  # fmt: skip
    z, z_0 = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.3)
    made = dpmpp_3m_sde_step(schedule, z, z_0, 1000, 800, torch.zeros_like(z))
    assert torch.allclose(made, schedule.signal(800) * z_0)
    history = History(2 * z_0, 1000, torch.ones(1, 1, 2, 2, dtype=torch.bool))
    again = dpmpp_3m_sde_step(schedule, made, z_0, 800, 600, torch.zeros_like(z), history)
    plain = dpmpp_3m_sde_step(schedule, made, z_0, 800, 600, torch.zeros_like(z))
    assert torch.equal(again, plain)


def test_a_pixel_without_history_takes_a_first_order_step():
    z, z_0 = torch.randn(1, 1, 2, 2), torch.randn(1, 1, 2, 2)
    valid = torch.tensor([[[[True, False], [False, True]]]])
    older = History(z_0 + 2, 700, valid)
    history = older.followed_by(z_0 + 1, 600, valid)
    made = dpmpp_3m_sde_step(SCHEDULE, z, z_0, 500, 400, torch.zeros_like(z), history)
    plain = dpmpp_3m_sde_step(SCHEDULE, z, z_0, 500, 400, torch.zeros_like(z))
    assert torch.equal(made[~valid], plain[~valid])
    assert not torch.isclose(made[valid], plain[valid]).any()


def test_chains_are_falling_end_in_zero_and_have_the_published_spacing():
    for name, chain in CHAINS.items():
        for steps in (1, 2, 10, 50, 333, 1000, 5000):
            times = chain(1000, steps)
            assert times[-1] == 0, name
            assert times == sorted(set(times), reverse=True), name
            assert times[0] <= 1000, name
    assert openai_timesteps(1000, 4) == [1000, 667, 334, 1, 0]
    assert leading_timesteps(1000, 50)[:2] == [982, 962]
    assert len(leading_timesteps(1000, 30)) == 32  # 31 transitions: 30 does not divide 1000
    assert trailing_timesteps(1000, 10)[:3] == [1000, 900, 800]
    with pytest.raises(ValueError, match="at least 1"):
        openai_timesteps(1000, 0)


@pytest.mark.parametrize("sampler", ["dpm++", "dpm++3m-sde"])
def test_a_history_outlives_the_canvases_of_the_tiles(sampler):
    model, options = fake_model(), UpscaleOptions(steps=7, lower_bound=0.2, tile=64)
    attention = torch.rand(1, 1, 128, 192, generator=torch.Generator().manual_seed(1))
    plan = plan_of(attention, model, options)
    z_lr = NoiseField(1).draw(0, 0, 0, 128, 192)

    def run(kept):
        tiles = TiledDenoiser(model, Condition(z_lr), plan, 8)
        return masked_sample(
            lambda *state: tiles(*state).clone() if kept else tiles(*state),
            SAMPLERS[sampler].step, model.backbone.schedule, plan.timesteps,
            AttentionMask(attention, 0.2, 100), z_lr, make_draw(z_lr, 5, SAMPLERS[sampler]),
        )  # fmt: skip

    assert torch.equal(run(kept=False), run(kept=True))
