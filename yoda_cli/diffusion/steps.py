"""Reverse steps of diffusion, one function each; ``samplers`` has the table of them.

Knows no network and no mask. A pixel's history begins where its mask does: its first steps are of
lower order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from yoda_cli.arrays import add_scaled, where, zeros
from yoda_cli.diffusion.schedule import NoiseSchedule, q_sample

if TYPE_CHECKING:
    from torch import Tensor

Step = Callable[[NoiseSchedule, "Tensor", "Tensor", int, int, "Tensor", "History | None"], "Tensor"]


@dataclass(frozen=True)
class History:
    """What a multi-step sampler remembers of the transition t_prev → t.

    ``valid`` is True where that transition refined the pixel; elsewhere ``z_0`` is meaningless.
    ``before`` is what it remembered of the transition before that.
    """

    z_0: Tensor
    t: int
    valid: Tensor
    before: History | None = None

    def followed_by(self, z_0: Tensor, t: int, valid: Tensor) -> History:
        """The history one transition on; what lies two back is forgotten."""
        return History(z_0, t, valid, replace(self, before=None))

    def cut(self, cut: Callable[[Tensor], Tensor]) -> History:
        """The same of a part of the picture, which ``cut`` gives."""
        before = self.before.cut(cut) if self.before else None
        return History(cut(self.z_0), self.t, cut(self.valid), before)


def _posterior(schedule: NoiseSchedule, t: int, s: int) -> tuple[float, float, float, float]:
    """Coefficients of z_0 and z_t in the mean of q(z_s | z_t, z_0), its variance, and β_{s→t}."""
    ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    alpha = ab_t / ab_s
    # The schedule's own β avoids the cancellation in 1-α where ᾱ is near 1.
    beta = float(schedule.beta[t]) if s == t - 1 else 1 - alpha
    coef_0 = math.sqrt(ab_s) * beta / (1 - ab_t)
    coef_t = math.sqrt(alpha) * (1 - ab_s) / (1 - ab_t)
    return coef_0, coef_t, beta * (1 - ab_s) / (1 - ab_t), beta


def reverse_std(schedule: NoiseSchedule, t: int, s: int) -> float:
    """Standard deviation of one ancestral step t → s; 0 when s is 0."""
    return math.sqrt(_posterior(schedule, t, s)[2])


def ddpm_step(
    schedule: NoiseSchedule, z_t: Tensor, z_0: Tensor, t: int, s: int, noise: Tensor,
    history: History | None = None,
) -> Tensor:  # fmt: skip
    """Ancestral step with the posterior variance β̃ (Ho et al., arXiv:2006.11239, eq. 7)."""
    coef_0, coef_t, variance, _ = _posterior(schedule, t, s)
    return coef_0 * z_0 + coef_t * z_t + math.sqrt(variance) * noise


def ddpm_sr3_step(
    schedule: NoiseSchedule, z_t: Tensor, z_0: Tensor, t: int, s: int, noise: Tensor,
    history: History | None = None,
) -> Tensor:  # fmt: skip
    """Ancestral step with the variance β that the SR3 paper prints; no noise in the last step."""
    coef_0, coef_t, _, beta = _posterior(schedule, t, s)
    return coef_0 * z_0 + coef_t * z_t + (math.sqrt(beta) if s > 0 else 0.0) * noise


def ddim_step(
    schedule: NoiseSchedule, z_t: Tensor, z_0: Tensor, t: int, s: int, noise: Tensor,
    history: History | None = None, *, eta: float = 0.0,
) -> Tensor:  # fmt: skip
    """DDIM (Song et al., arXiv:2010.02502, eq. 12); η = 0 is deterministic, η = 1 ancestral."""
    ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    sigma = eta * reverse_std(schedule, t, s)
    eps_scale = math.sqrt(max(1 - ab_s - sigma**2, 0.0)) / schedule.sigma(t)
    z_s = add_scaled((math.sqrt(ab_s) - eps_scale * math.sqrt(ab_t)) * z_0, z_t, eps_scale)
    return z_s + sigma * noise if sigma > 0 else z_s


def dpmpp_2m_step(
    schedule: NoiseSchedule, z_t: Tensor, z_0: Tensor, t: int, s: int, noise: Tensor,
    history: History | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++ 2M, data prediction (Lu et al., arXiv:2211.01095, alg. 2).

    First order where a pixel has no history, at the last step (λ is infinite there), and right
    after a start with ᾱ_T = 0.
    """
    lambda_t, lambda_s = schedule.half_log_snr(t), schedule.half_log_snr(s)
    h = lambda_s - lambda_t
    direction = z_0
    if history is not None and math.isfinite(h):
        h_last = lambda_t - schedule.half_log_snr(history.t)
        if math.isfinite(h_last):
            extrapolated = z_0 + h / (2 * h_last) * (z_0 - history.z_0)
            direction = where(history.valid, extrapolated, z_0)
    # -expm1(-inf) is 1: the last step lands on ẑ_0.
    return (
        schedule.sigma(s) / schedule.sigma(t) * z_t
        - schedule.signal(s) * math.expm1(-h) * direction
    )


def dpmpp_3m_sde_step(
    schedule: NoiseSchedule, z_t: Tensor, z_0: Tensor, t: int, s: int, noise: Tensor,
    history: History | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++ 3M SDE with η = 1: exact where ẑ_0 is a parabola in λ, plus fresh noise.

    Of lower order where a pixel has less history, and right after a start with ᾱ_T = 0. The last
    step lands on ẑ_0. The widespread implementation halves the last term and is of second order.
    """
    if s == 0:
        return z_0
    h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
    signal, sigma = schedule.signal(s), schedule.sigma(s)
    kept = sigma**2 * schedule.signal(t) / (signal * schedule.sigma(t) ** 2)
    fresh = -math.expm1(-2 * h)
    z = kept * z_t + signal * fresh * z_0 + sigma * math.sqrt(fresh) * noise
    if history is None or not math.isfinite(h):
        return z
    first, second = _differences(schedule, z_0, t, h, history)
    line = math.expm1(-2 * h) / (2 * h) + 1  # ∫ u and ∫ u² under the kernel 2h·exp(-2h(1-u))
    parabola = 1 - line / h
    return z + signal * (line * first + parabola * second)


def _differences(
    schedule: NoiseSchedule, z_0: Tensor, t: int, h: float, history: History
) -> tuple[Tensor, Tensor]:
    """First and second divided differences of ẑ_0 over λ, in units of h; 0 without a history."""
    lambda_t, lambda_1 = schedule.half_log_snr(t), schedule.half_log_snr(history.t)
    zero = zeros(z_0, *z_0.shape)
    if not math.isfinite(lambda_1):
        return zero, zero
    r_0 = (lambda_t - lambda_1) / h
    slope = where(history.valid, (z_0 - history.z_0) / r_0, zero)
    before = history.before
    if before is None or not math.isfinite(lambda_2 := schedule.half_log_snr(before.t)):
        return slope, zero
    r_1 = (lambda_1 - lambda_2) / h
    older = (history.z_0 - before.z_0) / r_1
    bend = where(before.valid & history.valid, (slope - older) / (r_0 + r_1), zero)
    return slope + r_0 * bend, bend


def renoise_step(
    schedule: NoiseSchedule, z_t: Tensor, z_0: Tensor, t: int, s: int, noise: Tensor,
    history: History | None = None,
) -> Tensor:  # fmt: skip
    """The estimate with fresh noise at the next level (Song et al., arXiv:2303.01469, alg. 1).

    For networks distilled to few steps, whose estimate is a sample. Elsewhere it is an average,
    and detail is lost at every step.
    """
    return q_sample(schedule, z_0, s, noise)
