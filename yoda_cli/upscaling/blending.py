"""Two models in one picture: another one's result, taken the more the brighter a map is.

A map is (1, 1, h, w) in [0, 1] on the grid of the input; where it is 0 the result is the first
model's to the bit, where it is 1 the second's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.attention import HEADED, LEARNED, SOURCES
from yoda_cli.attention.sources import find_source
from yoda_cli.errors import UsageError
from yoda_cli.images.resize import as_floats
from yoda_cli.models.model import Model
from yoda_cli.upscaling.conditioning import learned_map
from yoda_cli.upscaling.settings import Blend, Settings

SURE = 1 - 1e-6  # what enlarging may leave of 1
FIDELITY_REACH = 2  # pixels that drawing towards the base sees on either side


@dataclass(frozen=True, eq=False)
class Share:
    """One of two models, what it is told, and where its picture will be read, (1, 1, h, w)."""

    model: Model
    settings: Settings
    wanted: Tensor


def shares_of(
    lr: Tensor, model: Model, settings: Settings, weight: Tensor | None = None
) -> tuple[Tensor, list[Share]]:
    """The map, that of the source if ``weight`` is left out, and both models' part in it."""
    other, blend = model.where, settings.blend
    if other is None or blend is None:
        raise ValueError("these settings were resolved for one model")
    own = replace(settings, blend=None, faces=None)
    pairs = [(replace(model, where=None), own), (other, blend.settings)]
    found = weight_of(lr, pairs, blend) if weight is None else weight
    read = (found < 1, found > 0)
    return found, [
        Share(one, told, near(where, one, told))
        for (one, told), where in zip(pairs, read, strict=True)
    ]


def weight_of(lr: Tensor, models: Sequence[tuple[Model, Settings]], blend: Blend) -> Tensor:
    """The map of the source asked for; a learned one is that of the first model that has one.

    What a source finds reaches from 0 to 1 then; a painted picture is taken as it is.
    """
    lr = as_floats(lr)
    if blend.source != LEARNED:
        source = find_source(blend.source, blend.heads or None, models[0][0].device)
        found = source.attend(lr).float().cpu()
        return stretched(found) if blend.source in (*SOURCES, *HEADED) else found
    if blend.heads:
        raise UsageError("the learned attention has no heads")
    for model, settings in models:
        learned = learned_map(lr, model, settings)
        if learned is not None:
            return stretched(learned[..., : lr.shape[-2], : lr.shape[-1]].float().cpu())
    names = " and ".join(model.name for model, _ in models)
    raise UsageError(f"models {names} have no learned attention; give another with --attention")


def stretched(attention: Tensor) -> Tensor:
    """A map from 0 to 1; one that is the same everywhere stays as it is."""
    least, most = attention.amin(), attention.amax()
    return (attention - least) / (most - least) if bool(most > least) else attention


def near(read: Tensor, model: Model, settings: Settings) -> Tensor:
    """``read`` (1, 1, h, w), and as far around it as steps carry what is at one pixel; without
    diffusion as far as fidelity looks."""
    geometry, steps = model.backbone.geometry, len(settings.sampling.timesteps) - 1
    carried = -(-steps * geometry.halo // geometry.scale) if settings.diffuses else FIDELITY_REACH
    reach = min(carried, max(read.shape[-2:]))
    found = read.float()
    for kernel in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        found = F.max_pool2d(found, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
    return found > 0


def blended(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """``one`` where ``weight`` is 0, ``other`` where it is 1, and between them in between.

    Pictures are (1, 3, H, W) of one size; the weight (1, 1, h, w) is enlarged to it.
    """
    large = F.interpolate(weight, one.shape[-2:], mode="bilinear").clamp_(0, 1)
    mixed = torch.lerp(one, other, large)
    return torch.where(large <= 0, one, torch.where(large >= SURE, other, mixed))
