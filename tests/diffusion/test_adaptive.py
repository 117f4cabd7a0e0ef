"""The rule by which a region leaps: classes, hysteresis, and that every course ends at 0."""

import itertools

import numpy as np
import pytest
import torch

from yoda_cli.diffusion.adaptive import (
    LEAPS,
    TAU,
    Course,
    Gains,
    LeapRule,
    Pace,
    Trend,
    judge,
)
from yoda_cli.diffusion.courses import bounds_of
from yoda_cli.diffusion.schedule import make_schedule
from yoda_cli.diffusion.steps import ddim_step
from yoda_cli.diffusion.timesteps import CHAINS, spaced_timesteps
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample, masked_steps

FLAT, RISE, FALL = Gains(0.0, 0.0), Gains(0.0, 2 * TAU), Gains(0.0, -2 * TAU)
RULE = LeapRule()


def drawn(seed, count=60):
    """Gains of many sizes, runs of one sign among them."""
    rng = np.random.default_rng(seed)
    runs = np.repeat(rng.normal(size=(count, 2)), rng.integers(1, 6, count), axis=0)[:count]
    return [Gains(*pair) for pair in np.tanh(TAU * 3 * runs * rng.uniform(0, 2, (count, 1)))]


def walk(course, gains):
    """The course's times, judged by ``gains`` in turn, as the sampler asks for them."""
    gains, times = iter(gains), [next(course)]
    for s in course:
        if len(times) > 1 and s > 0:
            course.learn(next(gains), times[-1])
        times.append(s)
    return times


def judged(gains, *, late=True, rule=RULE):
    """The paces after each of ``gains``."""
    return list(
        itertools.accumulate(gains, lambda p, g: judge(p, g, rule, late=late), initial=Pace())
    )[1:]


@pytest.mark.parametrize("chain", sorted(CHAINS))
@pytest.mark.parametrize("leaps", [LEAPS, (1,), (2, 5, 9), (7,)])
def test_every_course_falls_along_its_chain_and_ends_at_zero(chain, leaps):
    for seed, steps in enumerate([1, 2, 3, 7, 20, 60] * 5):
        times = CHAINS[chain](1000, steps)
        course = Course(times, LeapRule(TAU, leaps))
        taken = walk(course, drawn(seed))
        assert (taken[0], taken[-1]) == (times[0], 0)
        assert all(a > b for a, b in itertools.pairwise(taken))
        assert set(taken) <= set(times)
        assert [times[i + 1] for i in course.steps] == taken[1:]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 13, 20, 37, 50])
def test_no_course_is_shorter_or_longer_than_what_is_told_beforehand(steps):
    times = spaced_timesteps(1000, steps)
    least, most = bounds_of(tuple(times), RULE, [1] * steps)
    assert most <= steps
    counts = {len(walk(Course(times, RULE), drawn(seed))) - 1 for seed in range(60)}
    assert least <= min(counts)
    assert max(counts) <= most


def test_a_region_that_gains_nothing_leaps_further_each_time():
    assert [pace.leap for pace in judged([FLAT] * 5)] == [1, 2, 3, 3, 3]
    assert {pace.trend for pace in judged([FLAT] * 5)} == {Trend.STABLE}


def test_where_realism_grows_the_step_is_the_smallest():
    paces = judged([FLAT, FLAT, RISE, FLAT])
    assert [pace.leap for pace in paces] == [1, 2, 0, 1]
    assert paces[2].trend is Trend.GROWING


def test_a_growing_region_stays_so_at_gains_that_would_not_make_a_stable_one_grow():
    between = Gains(0.0, 0.7 * TAU)
    assert judged([RISE, between])[-1].trend is Trend.GROWING
    assert judged([FLAT, between])[-1].trend is Trend.STABLE
    assert judged([RISE, Gains(0.0, 0.4 * TAU)])[-1].trend is Trend.STABLE


def test_one_fall_is_looked_at_again_and_two_in_a_row_end_a_region():
    once = judged([FLAT, FLAT, FALL])[-1]
    assert (once.trend, once.leap) == (Trend.STABLE, 0)
    assert judged([FALL, FALL])[-1].trend is Trend.SATURATED
    assert judged([FALL, FLAT, FALL])[-1].trend is Trend.STABLE
    assert judged([FALL, RISE, FALL])[-1].trend is Trend.STABLE


def test_a_loss_of_fidelity_is_a_fall_unless_realism_grows():
    worse = Gains(-2 * TAU, 0.0)
    assert judged([worse, worse])[-1].trend is Trend.SATURATED
    assert judged([Gains(-2 * TAU, 2 * TAU)] * 3)[-1].trend is Trend.GROWING


def test_the_first_half_of_the_chain_knows_no_growth_and_no_fall():
    for gains in (RISE, FALL):
        assert {pace.trend for pace in judged([gains] * 4, late=False)} == {Trend.STABLE}


def test_a_saturated_region_goes_straight_to_the_end():
    course = Course(spaced_timesteps(1000, 50), RULE)
    times = walk(course, [FALL] * 50)
    assert course.trends[-1] is Trend.SATURATED
    late = [t for t in times if t <= 500]
    assert late[-1] == 0
    assert len(late) <= 5


def test_a_stable_region_takes_less_than_a_third_of_fifty_steps():
    times = spaced_timesteps(1000, 50)
    assert len(walk(Course(times, RULE), itertools.repeat(FLAT))) * 3 < 50
    assert max(LEAPS) == 4


@pytest.mark.parametrize(
    ("tau", "leaps"),
    [(0, LEAPS), (1, LEAPS), (TAU, ()), (TAU, (0, 1)), (TAU, (2, 2)), (TAU, (2, 1))],
)
def test_a_rule_that_cannot_work_is_refused(tau, leaps):
    with pytest.raises(ValueError, match=r"tau|leaps"):
        LeapRule(tau, leaps)


def test_gains_are_bounded_and_signed():
    assert Gains.between(Gains(1.0, 2.0), Gains(500.0, 1.9)).fidelity == pytest.approx(1.0)
    assert Gains.between(Gains(1.0, 2.0), Gains(1.0, 1.9)).realism == pytest.approx(
        -0.0997, abs=1e-3
    )


def test_the_loop_reads_a_time_only_after_the_step_before_it():
    """What was estimated at t may so decide where to go after the next."""
    schedule, z_lr, read = make_schedule("cosine", 100), torch.zeros(1, 1, 2, 2), []

    def times():
        for t in (100, 60, 20, 0):
            read.append(t)
            yield t

    policy = AttentionMask(torch.ones(1, 1, 2, 2), 0.5, 100)
    steps = masked_steps(ddim_step, schedule, times(), policy, z_lr, lambda s: z_lr + 1)
    query = next(steps)
    assert (query.t, query.s, read) == (100, 60, [100, 60])
    query = steps.send(0.5 * query.z_t)
    assert (query.t, query.s, read) == (60, 20, [100, 60, 20])


def test_the_loop_gives_the_same_for_a_list_and_for_what_is_read_one_by_one():
    schedule, z_lr = make_schedule("cosine", 100), torch.rand(1, 1, 4, 4)
    policy = AttentionMask(torch.rand(1, 1, 4, 4), 0.2, 100)
    noise = torch.randn(1, 1, 4, 4)

    def run(times):
        return masked_sample(
            lambda z, t, m: 0.5 * z, ddim_step, schedule, times, policy, z_lr, lambda s: noise
        )

    chain = spaced_timesteps(100, 5)
    assert torch.equal(run(chain), run(iter(chain)))
