"""What a region that decides on its way may take: against every course, walked one by one."""

import itertools
import random

import pytest

from yoda_cli.diffusion.adaptive import Course, LeapRule, Trend
from yoda_cli.diffusion.courses import bounds_of, outcomes, shares_of
from yoda_cli.diffusion.timesteps import spaced_timesteps

RULE = LeapRule()


def walked(times, rule, told):
    """The transitions that are made, and how likely, if judged steps gain what is ``told``."""
    course, gains, odds, made = Course(times, rule), iter(told), 1.0, []
    t = next(course)
    for count, s in enumerate(course):
        made.append(course.steps[-1])
        if count and s:
            gained, share = (None, 1.0) if not course.heeds(t) else next(gains)
            odds *= share
            if course.learn(gained, t).trend is Trend.SATURATED:
                break
        t = s
    return tuple(made), odds


def every_course(times, rule):
    """{transitions: how likely}: all sequences of outcomes that differ, each once."""
    late = sum(2 * t <= times[0] for t in times[1:])
    found = {}
    for told in itertools.product(outcomes(rule.tau), repeat=late):
        made, odds = walked(times, rule, told)
        found[made] = odds  # those of one course differ only in what is not asked any more
    return found


@pytest.mark.parametrize("leaps", [(1, 2, 3, 4), (2,), (1, 5)])
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 10])
def test_bounds_are_those_of_all_courses_and_are_reached(steps, leaps):
    times, rule = tuple(spaced_timesteps(1000, steps)), LeapRule(leaps=leaps)
    draw = random.Random(steps)
    for costs in ([1] * steps, [draw.randrange(9) for _ in range(steps)]):
        totals = [sum(costs[i] for i in made) for made in every_course(times, rule)]
        assert bounds_of(times, rule, costs) == (min(totals), max(totals))


def test_how_often_a_transition_is_made_is_what_many_runs_make_of_it():
    times, draw, runs = tuple(spaced_timesteps(1000, 50)), random.Random(1), 4000
    kinds, odds = zip(*((pair, pair[1]) for pair in outcomes(RULE.tau)), strict=True)
    counts = [0] * 50
    for _ in range(runs):
        made, _ = walked(times, RULE, draw.choices(kinds, odds, k=50))
        for i in made:
            counts[i] += 1
    shares = shares_of(times, RULE)
    assert [count / runs for count in counts] == pytest.approx(shares, abs=0.04)
    assert shares[0] == 1.0
    assert shares[2] == 0.0, "leaped over"


def test_a_smaller_tau_is_expected_to_take_more():
    times = tuple(spaced_timesteps(1000, 50))
    expected = [sum(shares_of(times, LeapRule(tau))) for tau in (0.5, 0.02, 0.005, 0.0001)]
    assert expected == sorted(expected)
    assert expected[-1] > 1.2 * expected[1]
    least, most = bounds_of(times, RULE, [1] * 50)
    assert least < expected[0] <= expected[-1] < most


def test_long_chains_are_told_without_recursion():
    times = tuple(spaced_timesteps(2000, 2000))
    least, most = bounds_of(times, RULE, [1] * 2000)
    assert least < sum(shares_of(times, RULE)) < most < 2000
