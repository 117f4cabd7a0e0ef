"""The table of all samplers: what is to be known of each, and the name of its step in ``steps``.

The command line reads it before NumPy and torch are loaded, so neither is imported here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from yoda_cli.diffusion.steps import Step


class Sampler(NamedTuple):
    """A reverse step, and what is to be known of it.

    ``function`` is the step's name in ``steps``. ``history`` is how many earlier estimates it looks
    back on. A stochastic one draws noise at every step, an ancestral one with the variance of
    q(z_s | z_t, z_0). A distilled one is right only for networks distilled to few steps.
    ``timesteps`` names the spacing of the chain that it needs, whatever the model's own is.
    """

    name: str
    function: str
    history: int = 0
    is_stochastic: bool = False
    is_ancestral: bool = False
    is_distilled: bool = False
    timesteps: str | None = None

    @property
    def step(self) -> Step:
        """The reverse step t → s."""
        found: Step = getattr(import_module("yoda_cli.diffusion.steps"), self.function)
        return found


#: Samplers by the name the command line knows; DDIM here means η = 0.
SAMPLERS: dict[str, Sampler] = {
    sampler.name: sampler
    for sampler in (
        Sampler("ddim", "ddim_step"),
        Sampler("ddpm", "ddpm_step", is_stochastic=True, is_ancestral=True),
        Sampler("ddpm-sr3", "ddpm_sr3_step", is_stochastic=True, is_ancestral=True),
        # They extrapolate by the last step's length in λ: a chain whose last leap is long
        # (200, 1, 0) throws them far off.
        Sampler("dpm++", "dpmpp_2m_step", history=1, timesteps="trailing"),
        Sampler(
            "dpm++3m-sde", "dpmpp_3m_sde_step", history=2, is_stochastic=True, timesteps="trailing"
        ),
        Sampler("renoise", "renoise_step", is_stochastic=True, is_distilled=True),
    )
}
