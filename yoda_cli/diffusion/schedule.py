"""Variance schedules and the forward process. Knows no network, no mask and no sampler.

Time counts T, T-1, …, 1 and 0 is the clean signal, so ``alpha_bar`` has T+1 entries and
``alpha_bar[0] == 1``. ``beta[t]`` is the variance of the step t-1 → t, ``beta[0] == 0``.
Coefficients are float64 Python numbers; states are tensors of any shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from yoda_cli.arrays import add_scaled

if TYPE_CHECKING:
    from torch import Tensor

Prediction = Literal["eps", "v", "x0"]

ScheduleKind = Literal[
    "linear", "scaled_linear", "cosine", "quad", "warmup10", "warmup50", "const", "jsd"
]


@dataclass(frozen=True)
class NoiseSchedule:
    """A variance schedule; both have T+1 float64 entries, of torch or NumPy."""

    beta: Tensor
    alpha_bar: Tensor

    @property
    def num_steps(self) -> int:
        """T, the length of the training chain."""
        return len(self.alpha_bar) - 1

    def signal(self, t: int) -> float:
        """√ᾱ_t."""
        return math.sqrt(float(self.alpha_bar[t]))

    def sigma(self, t: int) -> float:
        """√(1-ᾱ_t)."""
        return math.sqrt(1.0 - float(self.alpha_bar[t]))

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1-ᾱ), fp32, shaped like the integer times ``t`` and on their device."""
        signal, sigma = self.alpha_bar.sqrt().float(), (1 - self.alpha_bar).sqrt().float()
        return signal.to(t.device)[t], sigma.to(t.device)[t]

    def half_log_snr(self, t: int) -> float:
        """λ_t = log(√ᾱ_t / √(1-ᾱ_t)); ±inf at the ends of the chain where it is so."""
        signal, sigma = self.signal(t), self.sigma(t)
        if sigma == 0:
            return math.inf
        return math.log(signal / sigma) if signal > 0 else -math.inf


def _betas(kind: ScheduleKind, n: int, start: float, end: float, cosine_s: float) -> Tensor:
    import torch

    def linspace(a: float, b: float, count: int) -> Tensor:
        return torch.linspace(a, b, count, dtype=torch.float64)

    if kind == "linear":
        return linspace(start, end, n)
    if kind in ("quad", "scaled_linear"):  # the same formula under two names in the literature
        return linspace(math.sqrt(start), math.sqrt(end), n) ** 2
    if kind in ("warmup10", "warmup50"):
        betas = torch.full((n,), end, dtype=torch.float64)
        ramp = int(n * (0.1 if kind == "warmup10" else 0.5))
        betas[:ramp] = linspace(start, end, ramp)
        return betas
    if kind == "const":
        return torch.full((n,), end, dtype=torch.float64)
    if kind == "jsd":
        return 1.0 / linspace(n, 1, n)
    if kind == "cosine":
        u = torch.arange(n + 1, dtype=torch.float64) / n
        alpha_bar = torch.cos((u + cosine_s) / (1 + cosine_s) * math.pi / 2) ** 2
        alpha_bar = alpha_bar / alpha_bar[0]
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(0, 0.999)
    raise ValueError(f"unknown schedule {kind!r}")


def make_schedule(
    kind: ScheduleKind,
    num_steps: int,
    *,
    beta_start: float = 1e-6,
    beta_end: float = 1e-2,
    cosine_s: float = 0.008,
    zero_terminal_snr: bool = False,
    alpha_bar_min: float = 0.0,
) -> NoiseSchedule:
    """Build a schedule of T = ``num_steps``.

    ``beta_start`` and ``beta_end`` are read by every kind but ``cosine`` and ``jsd``.
    ``zero_terminal_snr`` shifts and scales √ᾱ so that ᾱ_T = 0 (Lin et al., arXiv:2305.08891).
    ``alpha_bar_min`` > 0 keeps ᾱ away from 0 (for networks that predict eps).
    """
    if num_steps < 1:
        raise ValueError(f"a schedule needs at least one step, got {num_steps}")
    beta = _betas(kind, num_steps, beta_start, beta_end, cosine_s)
    return schedule_from_betas(
        beta, zero_terminal_snr=zero_terminal_snr, alpha_bar_min=alpha_bar_min
    )


def schedule_from_betas(
    beta: Tensor, *, zero_terminal_snr: bool = False, alpha_bar_min: float = 0.0
) -> NoiseSchedule:
    """A schedule from β_1 … β_T (T float64 values in [0, 1])."""
    import torch

    alpha_bar = torch.cumprod(1 - beta.double(), 0)
    if zero_terminal_snr:
        root = alpha_bar.sqrt()
        first, last = root[0].clone(), root[-1].clone()
        alpha_bar = ((root - last) * first / (first - last)) ** 2
    if alpha_bar_min > 0:
        alpha_bar = alpha_bar.clamp(min=alpha_bar_min)
    one = torch.ones(1, dtype=torch.float64)
    alpha_bar = torch.cat([one, alpha_bar])
    if zero_terminal_snr or alpha_bar_min > 0:
        beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    return NoiseSchedule(torch.cat([torch.zeros(1, dtype=torch.float64), beta.double()]), alpha_bar)


def q_sample(schedule: NoiseSchedule, z_0: Tensor, t: int, noise: Tensor) -> Tensor:
    """Draw from the forward marginal q(z_t | z_0) = N(√ᾱ_t z_0, (1-ᾱ_t) I)."""
    # In place after the first product: large canvases are bound by memory.
    return add_scaled(schedule.signal(t) * z_0, noise, schedule.sigma(t))


def predict_z0(
    prediction: Prediction, output: Tensor, z_t: Tensor, signal: Tensor | float,
    sigma: Tensor | float,
) -> Tensor:  # fmt: skip
    """ẑ_0 from what the network put out, at √ᾱ_t = ``signal`` and √(1-ᾱ_t) = ``sigma``.

    ``eps`` needs signal > 0; ``v`` is √ᾱ ε - √(1-ᾱ) z_0 (Salimans & Ho, arXiv:2202.00512).
    """
    if prediction == "eps":
        # The reference's order of operations: near ᾱ = 0 large terms cancel and any other shows.
        return (1 / signal) * z_t - (sigma / signal) * output
    if prediction == "v":
        return signal * z_t - sigma * output
    if prediction == "x0":
        return output
    raise ValueError(f"unknown prediction {prediction!r}")


def prediction_target(
    prediction: Prediction, z_t: Tensor, z_0: Tensor, signal: Tensor | float, sigma: Tensor | float
) -> Tensor:
    """What the network should put out in state ``z_t`` so that ẑ_0 = ``z_0``.

    The noise is derived from the state, ε* = (z_t - √ᾱ z_0)/√(1-ᾱ): a state that was not drawn
    from q(z_t | z_0) still gets the target that leads to z_0.
    """
    if prediction == "x0":
        return z_0
    eps = (z_t - signal * z_0) / sigma
    return eps if prediction == "eps" else signal * eps - sigma * z_0
