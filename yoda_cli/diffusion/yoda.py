"""YODA: You Only Diffuse Areas (arXiv:2308.07977). An attention map A says where diffusion works.

The mask M(t) = [T·(A+l) ≥ t] (eq. 8) is wide where A is high and grows as t falls, until at t ≤ T·l
it covers the picture. Inside it a pixel takes the reverse step; outside it holds the unrefined
picture z_lr, noised to the same level (eq. 12). One transition t → s of a shortened chain stands
for the steps t, …, s+1 and refines every pixel that any of them would: M(t→s) = M(s+1).
The unmasked baseline is A ≡ 1 in this same loop. Knows no network and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol

from yoda_cli.arrays import blank, choose, copied, where, without_gradients
from yoda_cli.diffusion.bands import bands
from yoda_cli.diffusion.schedule import NoiseSchedule, q_sample
from yoda_cli.diffusion.steps import History, Step, reverse_std

if TYPE_CHECKING:
    from torch import Tensor


def share(mask: Tensor) -> float:
    """The part of a picture that a mask refines."""
    return int(mask.count_nonzero()) / mask.numel()


Denoiser = Callable[["Tensor", int, "Tensor"], "Tensor"]  # (z_t, t, mask) → ẑ_0, fp32

Draw = Callable[[int], "Tensor"]  # step → standard normal noise for the whole canvas
Start = Literal["noise", "lr"]


@dataclass(frozen=True)
class StepRecord:
    """One transition, as an observer sees it: the state it led to, the estimate it used."""

    index: int
    t: int
    s: int
    mask: Tensor
    z_s: Tensor
    z_0: Tensor


def time_mask(attention: Tensor, lower_bound: float, t: int | Tensor, num_steps: int) -> Tensor:
    """M(t), eq. 8: True where T·(A+l) ≥ t. ``attention`` in [0, 1]; ``t`` may be (B, 1, 1, 1)."""
    return num_steps * (attention + lower_bound) >= t


class MaskPolicy(Protocol):
    """Where a transition t → s refines: (B, 1, H, W), True inside.

    It may look at the state ``z_t`` (B, C, H, W) and at the last estimate ``z_0``, None before the
    first. The last transition's mask must cover the picture.
    """

    def __call__(self, t: int, s: int, z_t: Tensor, z_0: Tensor | None) -> Tensor: ...


@dataclass(frozen=True)
class AttentionMask:
    """YODA's own policy, known before the first step: M(t→s) = M(s+1) of A and l.

    ``attention`` is (B, 1, H, W) in [0, 1] on the diffusion grid; ``num_steps`` is T.
    """

    attention: Tensor
    lower_bound: float
    num_steps: int

    def __call__(self, t: int, s: int, z_t: Tensor, z_0: Tensor | None) -> Tensor:
        return time_mask(self.attention, self.lower_bound, s + 1, self.num_steps)


@dataclass(frozen=True)
class Query:
    """What the loop asks of the network: ẑ_0 of ``z_t`` at time t, read where ``mask``, M(t→s), is
    True."""

    z_t: Tensor
    t: int
    s: int
    mask: Tensor


@without_gradients
def masked_sample(
    predict: Denoiser,
    step: Step,
    schedule: NoiseSchedule,
    timesteps: Iterable[int],
    policy: MaskPolicy,
    z_lr: Tensor,
    draw: Draw,
    *,
    start: Start = "noise",
    faithful: bool = False,
    on_step: Callable[[StepRecord], None] | None = None,
) -> Tensor:
    """Masked reverse diffusion along ``timesteps`` = [T, …, 0]; returns z_0, shaped like ``z_lr``.

    ``z_lr`` (B, C, H, W) is the unrefined picture on the diffusion grid. ``predict`` is read only
    where the mask is True; the state it is given is overwritten by the step, and what it returned
    may be, from the third call after that. ``start`` "lr" begins with q(z_T | z_lr) inside the mask
    too: networks that were tuned so see a trace of LR there. ``faithful`` runs eqs. 9 and 11 as
    printed (the network sees zeros outside the mask, the other side is N(z_lr, one step's
    variance)) instead of the forward marginal q(z_s | z_lr); it needs an ancestral ``step``, whose
    variance it borrows.
    """
    steps = masked_steps(
        step, schedule, timesteps, policy, z_lr, draw,
        start=start, faithful=faithful, on_step=on_step,
    )  # fmt: skip
    query = next(steps)
    while True:
        try:
            query = steps.send(predict(query.z_t, query.t, query.mask))
        except StopIteration as end:
            z: Tensor = end.value
            return z


def masked_steps(
    step: Step,
    schedule: NoiseSchedule,
    timesteps: Iterable[int],
    policy: MaskPolicy,
    z_lr: Tensor,
    draw: Draw,
    *,
    start: Start = "noise",
    faithful: bool = False,
    on_step: Callable[[StepRecord], None] | None = None,
) -> Generator[Query, Tensor, Tensor]:
    """The loop of ``masked_sample``, which asks for every ẑ_0 and waits until it is sent.

    Who drives several may so call the network for all at once. ``timesteps`` are read one by one,
    each after the step that leads to the one before it: they may depend on what was seen.
    """
    z, history = z_lr, None
    for index, (t, s) in enumerate(pairwise(timesteps)):
        if history is None:
            noise = draw(t)
            z = q_sample(schedule, z_lr, t, noise)
            mask = policy(t, s, z, None)
            if start == "noise":
                choose(z, mask, noise, z)
        else:
            mask = policy(t, s, z, history.z_0)
        noise = draw(s) if s > 0 else blank(z, *z.shape)  # the last step is noiseless
        z_0 = yield Query(z * mask if faithful else z, t, s, mask)
        for band in bands(z):  # every pixel for itself: in place, a few rows at a time
            z_t, fresh, lr = band.cut(z), band.cut(noise), band.cut(z_lr)
            before = history.cut(band.cut) if history else None
            refined = step(schedule, z_t, band.cut(z_0), t, s, fresh, before)
            if faithful:
                unrefined = lr + reverse_std(schedule, t, s) * fresh
            else:
                unrefined = q_sample(schedule, lr, s, fresh)
            choose(z_t, band.cut(mask), refined, unrefined)
        history = history.followed_by(z_0, t, mask) if history else History(z_0, t, mask)
        if on_step is not None:
            on_step(StepRecord(index, t, s, mask, copied(z), copied(z_0)))
    if history is None or not bool(mask.all()):
        raise ValueError("the last mask must cover the picture: is the lower bound below 1/T?")
    return z


def training_state(
    schedule: NoiseSchedule,
    z_0: Tensor,
    z_lr: Tensor,
    attention: Tensor,
    lower_bound: float,
    t: Tensor,
    s: Tensor,
    noise: Tensor,
) -> tuple[Tensor, Tensor]:
    """A state the sampler makes before the transition t → s, and the mask M(t→s) of its loss.

    ``t`` and ``s`` are (B,) integers, t > s. The transition before it refined M(t+1); pixels that
    enter only now still hold noised LR. At t = T nothing was refined yet, the start state is pure
    noise inside the mask, and the two differ by √ᾱ_T only. Returns (z_t, mask).
    """
    total = schedule.num_steps
    t, s = t.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)
    signal, sigma = schedule.levels(t)
    mask = time_mask(attention, lower_bound, s + 1, total)
    refined = where(t == total, mask, time_mask(attention, lower_bound, t + 1, total))
    return signal * where(refined, z_0, z_lr) + sigma * noise, mask


def masked_loss(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``error`` (B, C, H, W) inside ``mask`` (B, 1, H, W): eq. 13, by the mask's area."""
    weight = mask.to(error.dtype)
    return (error * weight).sum() / (weight.sum() * error.shape[1]).clamp(min=1)
