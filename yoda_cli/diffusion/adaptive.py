"""AdaDiffSR (arXiv:2410.17752): how far a region may leap, from what its last step gained. Pure.

A region's estimates are watched. The *information gain* of a step is tanh(R_i - R_{i-1}) of a sum
of measures: one of fidelity, one of realism. Where realism still grows the next step is small;
where it does not, the region leaps further; where it falls, the region leaves with the best it had.
A leap is a number of whole steps of the chain, so every region stands on the same times, and
M(t→s) = M(s+1) holds for whatever s it chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

TAU = 0.02  # chosen on validation photographs; the paper has 0.005, of its own measures
LEAPS = (1, 2, 3, 4)  # in steps: the paper's 5, 10, 15, 20 thousandths of T, at 200 steps
FALLS = 2  # in a row before a region leaves: that cannot be undone


class Trend(Enum):
    """What a region's last steps did to it."""

    GROWING = "growing"
    STABLE = "stable"
    SATURATED = "saturated"


@dataclass(frozen=True)
class Gains:
    """What one step gained, each in (-1, 1): towards the truth, and in natural texture."""

    fidelity: float
    realism: float

    @staticmethod
    def between(before: Gains, after: Gains) -> Gains:
        """The gains of a step that led from one pair of sums of measures to another."""
        return Gains(
            math.tanh(after.fidelity - before.fidelity), math.tanh(after.realism - before.realism)
        )


@dataclass(frozen=True)
class LeapRule:
    """``tau`` in (0, 1) is the least gain that counts; ``leaps`` are rising numbers of steps."""

    tau: float = TAU
    leaps: tuple[int, ...] = LEAPS

    def __post_init__(self) -> None:
        if not 0 < self.tau < 1:
            raise ValueError(f"tau {self.tau:g} is not in (0, 1)")
        rising = all(a < b for a, b in zip(self.leaps, self.leaps[1:], strict=False))
        if not self.leaps or self.leaps[0] < 1 or not rising:
            raise ValueError(f"leaps {self.leaps} are not rising numbers of steps")


@dataclass(frozen=True)
class Pace:
    """What is remembered of a region: its trend, its place in the codebook of leaps, and how many
    steps in a row it fell."""

    trend: Trend = Trend.GROWING
    leap: int = 0
    falls: int = 0


def judge(pace: Pace, gains: Gains | None, rule: LeapRule, *, late: bool) -> Pace:
    """The pace after a step that gained ``gains``; a region that nobody looked at is stable.

    In the first half of the chain (not ``late``) noise spoils what is seen of realism, so only
    the second half knows growing and falling regions. Hysteresis: a growing region is stable only
    below half of ``tau``, a stable one leaps further by one entry of the codebook at a time, and a
    region leaves after ``FALLS`` falls in a row.
    """
    longer = min(pace.leap + 1, len(rule.leaps) - 1)
    if not late or gains is None:
        return Pace(Trend.STABLE, longer)
    least = rule.tau / 2 if pace.trend is Trend.GROWING else rule.tau
    if gains.realism > least:
        return Pace(Trend.GROWING)
    falls = gains.realism < -rule.tau or gains.fidelity < -rule.tau
    if falls and pace.falls + 1 >= FALLS:
        return Pace(Trend.SATURATED, pace.leap, pace.falls + 1)
    if falls:  # looked at again soon
        return Pace(Trend.STABLE, 0, pace.falls + 1)
    return Pace(Trend.STABLE, longer)


@dataclass
class Course:
    """The times of one region, each chosen when it is asked for: an iterator over [t, …, 0].

    ``timesteps`` are those of the chain. ``steps`` are the transitions of the chain that the
    region's leaps ended with: the mask and the tiles of a leap are those of its last step.
    ``gains`` and ``trends`` are what was decided on, at the times ``judged``.
    """

    timesteps: Sequence[int]
    rule: LeapRule
    pace: Pace = field(default_factory=Pace)
    at: int = -1  # the place of the last time that was given
    gains: list[Gains] = field(default_factory=list)
    trends: list[Trend] = field(default_factory=list)
    judged: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The place of time 0."""
        return len(self.timesteps) - 1

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.at >= self.last:
            raise StopIteration
        self.at = 0 if self.at < 0 else place_after(self.at, self.pace, self.rule, self.last)
        if self.at > 0:
            self.steps.append(self.at - 1)
        return self.timesteps[self.at]

    def heeds(self, t: int) -> bool:
        """Whether what is gained at time ``t`` decides anything: in the second half it does."""
        return 2 * t <= self.timesteps[0]

    def learn(self, gains: Gains | None, t: int) -> Pace:
        """Decide on the leap that follows, from what the estimate at time ``t`` gained; None where
        nobody looked, in the first half."""
        late = self.heeds(t)
        self.pace = judge(self.pace, gains, self.rule, late=late)
        if late and gains is not None:
            self.gains.append(gains)
            self.trends.append(self.pace.trend)
            self.judged.append(t)
        return self.pace


def place_after(at: int, pace: Pace, rule: LeapRule, last: int) -> int:
    """Where a region stands next among the times of its chain; ``last`` is the place of 0."""
    if pace.trend is Trend.SATURATED:
        return last
    return min(at + rule.leaps[pace.leap], last)


def times_of(course: Course, gains: Callable[[], Gains]) -> list[int]:
    """[t, …, 0]: where a region stands whose steps gain what ``gains`` says, each when asked."""
    times = [next(course)]
    for s in course:  # the network is called at times[-1]; the first call gains nothing yet
        if len(times) > 1 and s > 0:
            course.learn(gains(), times[-1])
        times.append(s)
    return times
