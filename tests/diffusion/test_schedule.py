"""Schedules, marginals and single reverse steps, against formulas and exact Gaussian posteriors."""

import math
from itertools import pairwise

import pytest
import torch

from yoda_cli.diffusion.schedule import (
    make_schedule,
    predict_z0,
    prediction_target,
    q_sample,
)
from yoda_cli.diffusion.steps import (
    History,
    ddim_step,
    ddpm_sr3_step,
    ddpm_step,
    dpmpp_2m_step,
    reverse_std,
)
from yoda_cli.diffusion.timesteps import spaced_timesteps

KINDS = ["linear", "scaled_linear", "cosine", "quad", "warmup10", "warmup50", "const", "jsd"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_alpha_bar_starts_at_one_and_falls(kind, steps):
    schedule = make_schedule(kind, steps)
    assert schedule.num_steps == steps
    assert schedule.alpha_bar[0] == 1
    assert schedule.beta[0] == 0
    assert (schedule.alpha_bar.diff() < 0).all()
    assert torch.allclose(schedule.alpha_bar[1:], (1 - schedule.beta[1:]).cumprod(0), rtol=1e-12)


def test_schedules_follow_their_formulas():
    def beta(kind):
        return make_schedule(kind, 200, beta_start=1e-4, beta_end=2e-2).beta[1:]

    grid = torch.arange(200, dtype=torch.float64) / 199
    assert torch.allclose(beta("linear"), 1e-4 + grid * (2e-2 - 1e-4), rtol=1e-12)
    root = 1e-2 + grid * (math.sqrt(2e-2) - 1e-2)
    assert torch.allclose(beta("quad"), root**2, rtol=1e-12)
    assert torch.equal(beta("quad"), beta("scaled_linear"))
    assert torch.allclose(beta("jsd"), 1 / (200 - torch.arange(200.0, dtype=torch.float64)))
    assert (beta("const") == 2e-2).all()
    for kind, ramp in (("warmup10", 20), ("warmup50", 100)):
        values = beta(kind)
        assert values[0] == pytest.approx(1e-4)
        assert values[ramp - 1] == pytest.approx(2e-2)
        assert (values[ramp:] == 2e-2).all()
        assert torch.allclose(values[:ramp].diff(), values[:ramp].diff()[0].expand(ramp - 1))
    u = (0.5 + 0.008) / 1.008 * math.pi / 2
    u0 = 0.008 / 1.008 * math.pi / 2
    middle = float(make_schedule("cosine", 200).alpha_bar[100])
    assert middle == pytest.approx((math.cos(u) / math.cos(u0)) ** 2, rel=1e-9)


def test_stable_diffusion_schedule_ends_where_it_is_known_to():
    schedule = make_schedule("scaled_linear", 1000, beta_start=0.00085, beta_end=0.012)
    assert schedule.signal(1000) == pytest.approx(0.0682650, abs=1e-6)


def test_zero_terminal_snr_keeps_the_first_step_and_ends_at_zero():
    plain = make_schedule("scaled_linear", 1000, beta_start=0.00085, beta_end=0.012)
    zero = make_schedule(
        "scaled_linear", 1000, beta_start=0.00085, beta_end=0.012, zero_terminal_snr=True
    )
    assert zero.alpha_bar[-1] == 0
    assert float(zero.alpha_bar[1]) == pytest.approx(float(plain.alpha_bar[1]), rel=1e-12)
    assert zero.beta[-1] == 1


def test_every_sampler_stays_finite_from_zero_terminal_snr():
    schedule = make_schedule("scaled_linear", 50, zero_terminal_snr=True, beta_end=0.3)
    z, z_0, noise = (torch.randn(1, 3, 4, 4) for _ in range(3))
    for step in (ddpm_step, ddpm_sr3_step, ddim_step, dpmpp_2m_step):
        assert step(schedule, z, z_0, 50, 40, noise).isfinite().all()


def test_unknown_schedules_and_empty_chains_are_refused():
    with pytest.raises(ValueError, match="unknown schedule"):
        make_schedule("sigmoid", 10)
    with pytest.raises(ValueError, match="at least one step"):
        make_schedule("linear", 0)


@pytest.mark.parametrize("total", [1, 2, 100, 1000])
@pytest.mark.parametrize("steps", [1, 2, 3, 15, 1000, 5000])
def test_spaced_timesteps_fall_from_T_to_0_without_repeats(total, steps):  # noqa: N802
    chain = spaced_timesteps(total, steps)
    assert chain[0] == total
    assert chain[-1] == 0
    assert len(chain) - 1 == min(total, steps)
    assert all(a > b for a, b in pairwise(chain))


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_prediction_target_leads_back_to_z0_even_from_a_foreign_state(prediction):
    torch.manual_seed(0)
    z_0, z_t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    signal, sigma = 0.6, 0.8
    target = prediction_target(prediction, z_t, z_0, signal, sigma)
    assert torch.allclose(predict_z0(prediction, target, z_t, signal, sigma), z_0, atol=1e-6)


def test_ancestral_step_is_the_gaussian_posterior():
    # q(z_s | z_t, z_0) by conditioning the joint Gaussian of (z_s, z_t) given z_0.
    schedule = make_schedule("cosine", 100)
    for t, s in ((100, 99), (60, 30), (2, 1), (1, 0)):
        ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
        gain = math.sqrt(ab_t / ab_s) * (1 - ab_s) / (1 - ab_t)
        z_t, z_0 = 0.7, -0.4
        mean = math.sqrt(ab_s) * z_0 + gain * (z_t - math.sqrt(ab_t) * z_0)
        variance = (1 - ab_s) - gain * math.sqrt(ab_t / ab_s) * (1 - ab_s)
        got = [
            float(ddpm_step(schedule, torch.tensor(z_t), torch.tensor(z_0), t, s, torch.tensor(n)))
            for n in (0.0, 1.0)
        ]
        assert got[0] == pytest.approx(mean, abs=1e-5)
        assert got[1] - got[0] == pytest.approx(math.sqrt(max(variance, 0)), abs=1e-5)


def test_sr3_variance_is_beta_and_the_last_step_is_noiseless():
    schedule = make_schedule("linear", 100, beta_end=0.05)
    zero, one = torch.zeros(1), torch.ones(1)
    spread = ddpm_sr3_step(schedule, zero, zero, 50, 49, one)
    assert float(spread) == pytest.approx(math.sqrt(float(schedule.beta[50])), rel=1e-6)
    assert float(ddpm_sr3_step(schedule, zero, zero, 1, 0, one)) == 0
    assert reverse_std(schedule, 1, 0) == 0


def test_ddim_with_eta_one_is_the_ancestral_step():
    schedule = make_schedule("cosine", 100)
    torch.manual_seed(1)
    z, z_0, noise = (torch.randn(1, 3, 5, 5) for _ in range(3))
    for t, s in ((100, 90), (50, 20), (3, 1)):
        a = ddim_step(schedule, z, z_0, t, s, noise, eta=1.0)
        assert torch.allclose(a, ddpm_step(schedule, z, z_0, t, s, noise), atol=1e-5)


@pytest.mark.parametrize("step", [ddim_step, dpmpp_2m_step])
def test_deterministic_steps_with_the_true_z0_stay_on_the_trajectory(step):
    schedule = make_schedule("cosine", 100)
    torch.manual_seed(2)
    z_0, eps = torch.randn(1, 3, 5, 5), torch.randn(1, 3, 5, 5)
    z = q_sample(schedule, z_0, 90, eps)
    for t, s in ((90, 40), (40, 7), (7, 0)):
        z = step(schedule, z, z_0, t, s, torch.zeros_like(z))
        assert torch.allclose(z, q_sample(schedule, z_0, s, eps), atol=1e-4)


def test_dpm_solver_second_order_beats_first_order_on_a_gaussian():
    # Data N(0, c²): the exact ẑ_0 is linear in z_t and the exact flow only scales.
    schedule, c = make_schedule("cosine", 1000), 0.5

    def predict(z, t):
        ab = float(schedule.alpha_bar[t])
        return math.sqrt(ab) * c**2 / (ab * c**2 + 1 - ab) * z

    def run(with_history):
        z, history = torch.ones(1, dtype=torch.float64), None
        for t, s in pairwise([900, 700, 500, 300, 100]):
            z_0 = predict(z, t)
            used = history if with_history else None
            z = dpmpp_2m_step(schedule, z, z_0, t, s, torch.zeros(1), used)
            history = History(z_0, t, torch.ones(1, dtype=torch.bool))
        return float(z)

    def std(t):
        ab = float(schedule.alpha_bar[t])
        return math.sqrt(ab * c**2 + 1 - ab)

    exact = std(100) / std(900)
    assert abs(run(True) - exact) < 0.5 * abs(run(False) - exact)


def test_dpm_solver_is_first_order_where_a_pixel_has_no_history():
    schedule = make_schedule("cosine", 100)
    torch.manual_seed(3)
    z, z_0, old = (torch.randn(1, 1, 2, 2) for _ in range(3))
    old[..., 0] = math.nan  # what an idle pixel's estimate may hold
    valid = torch.tensor([[False, True], [False, True]])[None, None]
    out = dpmpp_2m_step(schedule, z, z_0, 50, 40, z, History(old, 60, valid))
    first = dpmpp_2m_step(schedule, z, z_0, 50, 40, z)
    assert torch.equal(out[..., 0], first[..., 0])
    assert not torch.allclose(out[..., 1], first[..., 1])
