"""What a region that decides on its way may take, told before it starts. Pure.

All courses that the rule allows are followed together: to a place of the chain with a pace only few
ways lead, so there are at most some ten of them to each step of the chain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from yoda_cli.diffusion.adaptive import Gains, LeapRule, Pace, Trend, judge, place_after

#: τ, and how often a judged step grows: chosen so that as many steps are expected as `general` made
#: with 50 on squares of thirteen photographs; its regressor and the plain measures took as many.
GROWING = ((0.001, 0.82), (0.005, 0.73), (0.02, 0.22), (0.04, 0.12))
FALLING = 0.02  # about how often one falls


def outcomes(tau: float) -> tuple[tuple[Gains, float], ...]:
    """What a judged step may gain, and how often; they sum to 1."""
    taus, shares = zip(*GROWING, strict=True)
    grows = float(np.interp(math.log(tau), np.log(taus), shares))
    return (
        (Gains(0.0, 1.0), grows),
        (Gains(0.0, 0.0), 1 - grows - FALLING),
        (Gains(0.0, -1.0), FALLING),
    )


@dataclass(frozen=True)
class Fork:
    """A region at place ``at`` with ``pace``, and what may come of it: it goes to place ``to``, and
    goes on from there with one of the paces of ``after``, each as often as is written there.

    It ends at ``to`` where the chain does; ``held`` says that it may end there by leaving.
    """

    at: int
    pace: Pace
    to: int
    after: Mapping[Pace, float]
    held: bool


@lru_cache(maxsize=16)
def forks(timesteps: tuple[int, ...], rule: LeapRule) -> tuple[Fork, ...]:
    """Every place and pace that a region can come to, those of earlier places first."""
    last, found = len(timesteps) - 1, []
    waiting: dict[int, dict[Pace, None]] = {0: {Pace(): None}}
    for at in range(last):
        for pace in waiting.pop(at, {}):
            to = place_after(at, pace, rule, last)
            after = paces_after(pace, rule, first=at == 0, late=2 * timesteps[at] <= timesteps[0])
            if to == last:
                after = {}
            staying = {p: odds for p, odds in after.items() if p.trend is not Trend.SATURATED}
            found.append(Fork(at, pace, to, staying, len(staying) < len(after)))
            waiting.setdefault(to, {}).update(dict.fromkeys(staying))
    return tuple(found)


def paces_after(pace: Pace, rule: LeapRule, *, first: bool, late: bool) -> dict[Pace, float]:
    """What a step may make of ``pace``, and how often."""
    if first:
        return {pace: 1.0}
    if not late:
        return {judge(pace, None, rule, late=False): 1.0}
    found: dict[Pace, float] = {}
    for gains, odds in outcomes(rule.tau):
        after = judge(pace, gains, rule, late=True)
        found[after] = found.get(after, 0.0) + odds
    return found


@lru_cache(maxsize=16)
def shares_of(timesteps: tuple[int, ...], rule: LeapRule) -> tuple[float, ...]:
    """How often each transition of the chain is made, 0 … 1, as far as can be told beforehand."""
    shares = [0.0] * (len(timesteps) - 1)
    coming: dict[tuple[int, Pace], float] = {(0, Pace()): 1.0}
    for fork in forks(timesteps, rule):
        share = coming.pop((fork.at, fork.pace))
        shares[fork.to - 1] += share
        for pace, odds in fork.after.items():
            coming[fork.to, pace] = coming.get((fork.to, pace), 0.0) + share * odds
    return tuple(shares)


def bounds_of(timesteps: tuple[int, ...], rule: LeapRule, costs: Sequence[int]) -> tuple[int, int]:
    """The least and the most that a region can cost, where each transition has its own cost."""
    spent: dict[tuple[int, Pace], tuple[int, int]] = {(0, Pace()): (0, 0)}
    ended: list[tuple[int, int]] = []
    for fork in forks(timesteps, rule):
        least, most = (n + costs[fork.to - 1] for n in spent.pop((fork.at, fork.pace)))
        if fork.held or not fork.after:
            ended.append((least, most))
        for pace in fork.after:
            other = spent.get((fork.to, pace), (least, most))
            spent[fork.to, pace] = min(least, other[0]), max(most, other[1])
    return min(least for least, _ in ended), max(most for _, most in ended)
