"""What a person asked, and a model's own defaults: resolved once into ``Settings``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.samplers import SAMPLERS, Sampler
from yoda_cli.diffusion.timesteps import CHAINS
from yoda_cli.diffusion.yoda import time_mask
from yoda_cli.errors import UsageError
from yoda_cli.models.model import Model
from yoda_cli.tiling.plan import TileChoice
from yoda_cli.upscaling.adaptive_settings import region_side, resolve_adaptive
from yoda_cli.upscaling.checks import apart, check_model
from yoda_cli.upscaling.settings import (
    Blend,
    LatentSettings,
    MaskSettings,
    SamplingSettings,
    Settings,
)

if TYPE_CHECKING:
    from torch import Tensor

#: Windows that go through a GPU together where nothing is said, and windows of latents, each of
#: which is a whole U-Net of Stable Diffusion. Chosen, not measured: no GPU was at hand. A group
#: that memory does not hold is halved.
GROUP, LATENT_GROUP = 8, 4
LEARNED, WITHOUT_LEARNED = "learned", "edge"  # the map of a blend where none is asked for
EVEN = "even"  # the spacing of every chain of pixels


def resolve(asked: UpscaleOptions, model: Model) -> Settings:
    """``asked``, whose values can be meant, with the model's own where nothing was said.

    ``asked.scale`` is the picture's own by now, and ``asked.denoise`` a number: what was left to
    estimate counts as a clean picture. UsageError where the two do not fit each other.
    """
    check_model(model, asked)
    if asked.where is not None and model.where is not None:
        return _resolve_two(asked, model, model.where)
    strength = asked.denoise or 0.0
    lower_bound = asked.lower_bound or model.defaults.lower_bound
    total = model.backbone.schedule.num_steps
    zero = cast("Tensor", np.zeros((), np.float32))
    if not bool(time_mask(zero, lower_bound, 1, total)):
        raise UsageError(
            f"lower bound {lower_bound:g} is below 1/T = 1/{total}: noise would remain"
        )
    # --faithful needs an ancestral sampler and takes ddpm by default.
    name = asked.sampler or ("ddpm" if asked.faithful else model.defaults.sampler)
    sampling = SamplingSettings(
        SAMPLERS[name],
        _timesteps(asked.steps or model.defaults.steps, SAMPLERS[name], model),
        asked.seed,
        model.fidelity(asked.fidelity, strength),
        strength,
        model.fidelity(asked.fidelity, 0.0),
    )
    sampling = replace(sampling, adaptive=resolve_adaptive(asked, model, sampling.timesteps))
    mask = MaskSettings(
        asked.attention or model.defaults.attention, asked.heads or "", lower_bound,
        asked.budget or 0.0, asked.faithful,
    )  # fmt: skip
    return Settings(
        asked.model,
        asked.scale if asked.scale is not None else float(model.scale),
        mask,
        sampling,
        TileChoice(
            asked.tile, asked.tile_overlap, region_side(asked, model), asked.exact, asked.skip
        ),
        _group(asked, model),
        asked.compile,
        model.device,
        model.precision,
        _latent(asked, model, sampling.fidelity),
        _faces(asked, model),
        asked.refine,
    )


def _resolve_two(asked: UpscaleOptions, model: Model, other: Model) -> Settings:
    """Two models that are blended: the map is asked for both, all else of each."""
    own = resolve(apart(asked, model), replace(model, where=None))
    told = replace(apart(asked, other), model=str(asked.where), faces=False, scale=own.scale)
    learned = LEARNED in (model.defaults.attention, other.defaults.attention)
    source = asked.attention or (LEARNED if learned else WITHOUT_LEARNED)
    return replace(own, blend=Blend(source, asked.heads or "", resolve(told, other)))


def _faces(asked: UpscaleOptions, model: Model) -> Settings | None:
    """Of the model of faces: its own factor and chain, the fidelity and seed that were asked."""
    if not asked.faces or model.faces is None:
        return None
    helper = model.faces.model
    own = UpscaleOptions(
        model=helper.name, seed=asked.seed, fidelity=asked.fidelity, exact=asked.exact,
        denoise=asked.denoise if helper.can_denoise else 0.0,
    )  # fmt: skip
    return resolve(own, helper)


def _timesteps(steps: int, sampler: Sampler, model: Model) -> tuple[int, ...]:
    spacing = EVEN
    if model.family is not None:  # published chains may end in a long leap
        spacing = sampler.timesteps or model.family.settings.chain
    return tuple(CHAINS[spacing](model.backbone.schedule.num_steps, steps))


def _group(asked: UpscaleOptions, model: Model) -> int:
    """A CPU takes windows one by one: it rounds by the size of the group."""
    if model.device.type == "cpu" or asked.exact:
        return 1
    return asked.batch or (GROUP if model.family is None else LATENT_GROUP)


def _latent(asked: UpscaleOptions, model: Model, fidelity: float) -> LatentSettings | None:
    if model.family is None:
        return None
    from yoda_cli.models.latent.family import Steering

    own = model.family.settings
    steering = Steering(
        own.prompt if asked.prompt is None else asked.prompt,
        own.negative_prompt if asked.negative_prompt is None else asked.negative_prompt,
        own.cfg if asked.cfg is None else asked.cfg,
        1.0 if asked.strength is None else asked.strength,
        fidelity,
    )
    return LatentSettings(
        asked.task or "sr", asked.stage1 or "", asked.attention_from or "stage1", steering,
        model.family.wraps,
    )  # fmt: skip
