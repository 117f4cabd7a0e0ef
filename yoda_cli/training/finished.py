"""What the structure head minimises: errors of the whole picture, as the tool makes it.

The base is trained for the least error, and of a damaged picture that is a blur; a sample adds
detail to it, and all of it is drawn by chance. The head adds what is known but faint: it is judged
by how the finished picture, made-up detail included, agrees in structure with the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from yoda_cli.config import TrainOptions
from yoda_cli.diffusion.steps import ddim_step
from yoda_cli.diffusion.timesteps import spaced_timesteps
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.errors import UsageError
from yoda_cli.evaluation.metrics.basic import crop_border, structural_similarity
from yoda_cli.images.color import luma
from yoda_cli.images.fidelity import draw_towards_base
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.base import Condition
from yoda_cli.training.data import Batch
from yoda_cli.training.texture_loss import texture_loss

BORDER = 8  # pixels of a crop that are not judged: the encoder did not see what lies beyond them


def finished_losses(
    net: Backbone, batch: Batch, condition: Condition, options: TrainOptions,
    generator: torch.Generator, autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, Tensor]:  # fmt: skip
    """The weighted terms of one step's loss; ``condition`` is ``net.encode``'s, with gradients.

    UsageError where nothing of what made the condition is there to be trained.
    """
    base = condition.maps.get("base")
    if base is None or not base.requires_grad:
        raise UsageError('states = "finished" trains what is added to the base: nothing is')
    with torch.no_grad():
        z_0 = _sample(net, condition, options, generator, autocast)
    picture = draw(net.decode(z_0, condition).float(), base.float(), options.fidelity)
    ours, truth = crop_border(picture, BORDER), crop_border(batch.hr, BORDER)
    return {
        "error": options.error_weight * (ours - truth).abs().mean(),
        "structure": options.structure_weight
        * (1 - structural_similarity(luma(ours).float(), luma(truth).float())),
        "texture": options.texture_weight
        * texture_loss(ours, truth, net.geometry.scale, generator),
    }


def draw(sample: Tensor, base: Tensor, fidelity: float) -> Tensor:
    """``draw_towards_base`` at any fidelity; what is drawn is a constant to the gradient."""
    drawn, plain = sample.detach(), base.detach()
    if fidelity > 0:
        drawn = draw_towards_base(drawn, plain, fidelity)
    return base + (drawn - plain)


def _sample(
    net: Backbone, condition: Condition, options: TrainOptions, generator: torch.Generator,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Tensor:  # fmt: skip
    """ẑ_0 of one of the chains, without masks."""
    z_lr, total = condition.z_lr, net.schedule.num_steps
    which = int(torch.randint(len(options.chains), (1,), generator=generator))
    noise = torch.randn(z_lr.shape, generator=generator).to(z_lr.device)

    def predict(z_t: Tensor, t: int, mask: Tensor) -> Tensor:
        with autocast():
            return net.predict(z_t, t, condition, mask)

    everywhere = AttentionMask(torch.ones_like(z_lr[:, :1]), 1.0, total)
    chain = spaced_timesteps(total, options.chains[which] or total)
    return masked_sample(
        predict, ddim_step, net.schedule, chain, everywhere, z_lr, lambda step: noise
    )
