"""The idea: masks only grow, the baseline is the same loop, the LR sides are what they say."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yoda_cli.diffusion.noise import NoiseField
from yoda_cli.diffusion.samplers import SAMPLERS, ddim_step, ddpm_step, dpmpp_2m_step, reverse_std
from yoda_cli.diffusion.schedule import make_schedule, q_sample
from yoda_cli.diffusion.timesteps import spaced_timesteps
from yoda_cli.diffusion.yoda import (
    AttentionMask,
    masked_loss,
    masked_sample,
    time_mask,
    training_state,
)

SCHEDULE = make_schedule("cosine", 100)
HALF = torch.zeros(1, 1, 8, 8)
HALF[..., 4:] = 1.0


def noise_of(step):
    return NoiseField(7).draw(step, 0, 0, 8, 8)


def sample(attention, *, lower=0.2, steps=10, step=ddpm_step, predict=None, z_lr=None, **extra):
    z_lr = torch.full((1, 3, 8, 8), 0.25) if z_lr is None else z_lr
    predict = predict or (lambda z, t, mask: 0.5 * z)
    chain = spaced_timesteps(100, steps)
    return masked_sample(
        predict, step, SCHEDULE, chain, AttentionMask(attention, lower, SCHEDULE.num_steps), z_lr,
        noise_of, **extra
    )  # fmt: skip


@given(st.floats(0, 1), st.floats(0.01, 1), st.integers(1, 2000), st.integers(1, 2000))
def test_masks_only_grow_as_time_falls(a, lower, num_steps, t):
    attention = torch.tensor([[[[a]]]])
    late = time_mask(attention, lower, max(t - 1, 1), num_steps)
    assert late >= time_mask(attention, lower, t, num_steps)


def test_the_mask_is_equation_8():
    attention = torch.tensor([0.0, 0.25, 0.5, 1.0])
    # T·(A+l) = 12.5, 37.5, 62.5, 112.5
    assert time_mask(attention, 0.125, 37, 100).tolist() == [False, True, True, True]
    assert time_mask(attention, 0.125, 38, 100).tolist() == [False, False, True, True]
    assert time_mask(attention, 0.125, 12, 100).tolist() == [True] * 4


@pytest.mark.parametrize("sampler", [*SAMPLERS, "faithful"])
def test_bands_of_rows_change_nothing(sampler, monkeypatch):
    faithful = sampler == "faithful"
    step = ddpm_step if faithful else SAMPLERS[sampler].step

    def predict(z, t, mask):
        return torch.where(mask, z.sin() + t / 100, torch.nan)  # where it is False nothing is read

    z_lr = NoiseField(3).draw(0, 0, 0, 8, 8)
    attention = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    common = {"step": step, "predict": predict, "z_lr": z_lr, "faithful": faithful}
    whole = sample(attention, **common)
    assert whole.isfinite().all()
    monkeypatch.setattr("yoda_cli.diffusion.bands.BAND_VALUES", 3 * 8 * 3)
    assert torch.equal(sample(attention, **common), whole)


def test_what_an_observer_saw_stays_as_it_was():
    seen, states = [], []

    def watch(record):
        seen.append(record)
        states.append(record.z_s.clone())

    last = sample(HALF, on_step=watch)
    assert all(torch.equal(r.z_s, state) for r, state in zip(seen, states, strict=True))
    assert torch.equal(seen[-1].z_s, last)
    assert not torch.equal(seen[0].z_s, last)


def test_a_transition_covers_every_step_it_stands_for():
    seen = []
    sample(HALF * 0.3, steps=5, on_step=seen.append)
    for record in seen:
        union = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        for t in range(record.t, record.s, -1):
            union |= time_mask(HALF * 0.3, 0.2, t, 100)
        assert torch.equal(record.mask, union)


@pytest.mark.parametrize("step", [ddpm_step, ddim_step, dpmpp_2m_step])
def test_full_attention_is_plain_sampling_draw_for_draw(step):
    got = sample(torch.ones(1, 1, 8, 8), step=step, predict=lambda z, t, mask: 0.5 * z.tanh())
    z = noise_of(100)
    history = None
    from yoda_cli.diffusion.samplers import History

    everywhere = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    for t, s in pairwise(spaced_timesteps(100, 10)):
        z_0 = 0.5 * z.tanh()
        noise = noise_of(s) if s else torch.zeros_like(z)
        z = step(SCHEDULE, z, z_0, t, s, noise, history)
        history = History(z_0, t, everywhere)
    assert torch.equal(got, z)


def test_outside_the_mask_stands_the_forward_marginal_of_the_lr_picture():
    records = []
    sample(HALF, lower=0.05, steps=10, on_step=records.append)
    z_lr = torch.full((1, 3, 8, 8), 0.25)
    early = [r for r in records if not r.mask.all()]
    assert early
    for record in early:
        idle = ~record.mask.expand_as(record.z_s)
        expected = q_sample(SCHEDULE, z_lr, record.s, noise_of(record.s))
        assert torch.equal(record.z_s[idle], expected[idle])


def test_the_faithful_lr_side_has_the_printed_mean_and_one_steps_variance():
    records = []
    sample(HALF, lower=0.05, steps=10, faithful=True, on_step=records.append)
    z_lr = torch.full((1, 3, 8, 8), 0.25)
    for record in records[:-1]:
        idle = ~record.mask.expand_as(record.z_s)
        std = reverse_std(SCHEDULE, record.t, record.s)
        expected = z_lr + std * noise_of(record.s)
        assert torch.equal(record.z_s[idle], expected[idle])
        # Too little noise: the trap that the forward marginal avoids.
        if idle.any():
            assert std < SCHEDULE.sigma(record.s)


def test_faithful_shows_the_network_zeros_outside_the_mask_and_the_default_does_not():
    def spy(seen):
        def predict(z, t, mask):
            seen.append((z.clone(), mask.clone()))
            return 0.5 * z

        return predict

    literal, default = [], []
    sample(HALF, lower=0.05, faithful=True, predict=spy(literal))
    sample(HALF, lower=0.05, predict=spy(default))
    idle = ~literal[0][1].expand_as(literal[0][0])
    assert idle.any()
    assert (literal[0][0][idle] == 0).all()
    assert (default[0][0][idle] != 0).all()


def test_the_start_is_noise_inside_and_noised_lr_outside():
    seen = []

    def predict(z, t, mask):
        seen.append(z.clone())
        return z

    sample(HALF, lower=0.05, predict=predict)
    noise = noise_of(100)
    assert torch.equal(seen[0][..., 4:], noise[..., 4:])
    z_lr = torch.full((1, 3, 8, 8), 0.25)
    assert torch.equal(seen[0][..., :4], q_sample(SCHEDULE, z_lr, 100, noise)[..., :4])


def test_a_start_from_lr_is_the_noised_lr_inside_the_mask_too():
    seen = []

    def predict(z, t, mask):
        seen.append(z.clone())
        return z

    sample(HALF, lower=0.05, predict=predict, start="lr")
    noised = q_sample(SCHEDULE, torch.full((1, 3, 8, 8), 0.25), 100, noise_of(100))
    assert torch.equal(seen[0], noised)
    assert not torch.equal(noised[..., 4:], noise_of(100)[..., 4:])  # a trace of LR is seen


def test_what_an_idle_pixel_predicts_is_never_read():
    def poisoned(z, t, mask):
        return torch.where(mask, 0.5 * z, torch.full_like(z, math.nan))

    for step in (ddpm_step, ddim_step, dpmpp_2m_step):
        clean = sample(HALF, lower=0.05, step=step)
        assert torch.equal(sample(HALF, lower=0.05, step=step, predict=poisoned), clean)


def test_a_lower_bound_under_one_step_is_refused_instead_of_leaving_noise():
    with pytest.raises(ValueError, match="must cover the picture"):
        sample(torch.zeros(1, 1, 8, 8), lower=0.001)


def test_training_states_are_the_states_the_sampler_makes():
    # With a perfect denoiser the sampler's states are q(z_t | y) inside the previous mask and
    # q(z_t | z_lr) outside: compare pixel by pixel through the noise they imply.
    torch.manual_seed(0)
    y, z_lr = torch.randn(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    attention = torch.rand(1, 1, 8, 8)
    chain = spaced_timesteps(100, 10)
    states = {}

    def perfect(z, t, mask):
        states[t] = (z.clone(), mask)
        return y

    sample(attention, predict=perfect, z_lr=z_lr, lower=0.05)
    for before, t, s in zip(chain, chain[1:], chain[2:], strict=False):
        refined = time_mask(attention, 0.05, t + 1, 100)
        z, mask = states[t]
        clean = torch.where(refined, y, z_lr)
        implied = (z - SCHEDULE.signal(t) * clean) / SCHEDULE.sigma(t)
        made, made_mask = training_state(
            SCHEDULE, y, z_lr, attention, 0.05, torch.tensor([t]), torch.tensor([s]), implied
        )
        assert torch.equal(mask, made_mask)
        assert torch.allclose(made, z, atol=1e-5)
        assert before > t
        # The implied noise is standard normal only if clean is the right mixture.
        assert implied.std() == pytest.approx(1, abs=0.25)


def test_a_batch_of_training_states_equals_its_parts():
    torch.manual_seed(0)
    y, z_lr, noise = (torch.randn(2, 3, 8, 8) for _ in range(3))
    attention = torch.rand(2, 1, 8, 8)
    t, s = torch.tensor([100, 40]), torch.tensor([80, 10])
    both, mask = training_state(SCHEDULE, y, z_lr, attention, 0.1, t, s, noise)
    for i in range(2):
        part = slice(i, i + 1)
        one, one_mask = training_state(
            SCHEDULE, y[part], z_lr[part], attention[part], 0.1, t[part], s[part], noise[part]
        )
        assert torch.equal(both[part], one)
        assert torch.equal(mask[part], one_mask)
    assert mask[0].float().mean() < mask[1].float().mean()


def test_masked_loss_divides_by_the_masks_area():
    error = torch.zeros(1, 3, 8, 8)
    error[..., 4:] = 2.0
    assert masked_loss(error, HALF.bool()) == 2.0
    assert masked_loss(error, torch.ones(1, 1, 8, 8, dtype=torch.bool)) == 1.0
    assert masked_loss(error, torch.zeros(1, 1, 8, 8, dtype=torch.bool)) == 0.0
