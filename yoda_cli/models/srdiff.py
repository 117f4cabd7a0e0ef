"""SRDiff: diffusion of the residual against an enlarged LR image, conditioned on LR features.

Published configurations keep their conventions: images in [-1, 1], residual against bicubic × 2.0
and clamped, eps prediction, T = 100 cosine, and LR_up from the 8-bit LR divided by 256, not 255.
The compact form diffuses the residual against its encoder's own regression base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.diffusion.schedule import (
    NoiseSchedule,
    Prediction,
    ScheduleKind,
    make_schedule,
    schedule_from_betas,
)
from yoda_cli.images.resize import imresize
from yoda_cli.models.backbone import Backbone, clip_to, predict_clipped
from yoda_cli.models.base import Condition, build_config
from yoda_cli.models.nets.encoder import LREncoder
from yoda_cli.models.nets.injection import Injection
from yoda_cli.models.nets.restorer import SCALE, Restorer
from yoda_cli.models.nets.rrdb import RRDBNet
from yoda_cli.models.nets.srdiff import SRDiffUNet
from yoda_cli.models.restoring import FROM, share_of, with_restored
from yoda_cli.tiling.geometry import Geometry


@dataclass(frozen=True)
class SRDiffConfig:
    """Everything that fixes the network and its diffusion space.

    ``encoder``: ``rrdb`` (published) or ``residual`` (compact, brings the base and the learned
    attention). ``residual_scale`` multiplies residuals of images in [-1, 1]; ``clip_z0`` clamps
    ẑ_0 to ± that, 0 leaves it. ``lr_divisor`` is 256 for the released weights. ``anchor`` is what a
    compact network's residual is taken against: its regression ``base``, or ``bicubic``.
    ``restorer_blocks`` (compact only; 0: none) is the depth of the network that restores damaged
    pictures.
    With ``injection`` a compact network's features are steered by what the last step gained.
    """

    scale: int = 4
    dim: int = 64
    dim_mults: tuple[int, ...] = (1, 2, 3, 4)
    unet_blocks: int = 2
    unshuffle: int = 1
    mask_input: bool = False
    encoder: Literal["rrdb", "residual"] = "rrdb"
    encoder_channels: int = 64
    encoder_blocks: int = 17
    encoder_growth: int = 32
    num_steps: int = 100
    schedule: ScheduleKind = "cosine"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    cosine_s: float = 0.008
    alpha_bar_min: float = 0.0
    prediction: Prediction = "eps"
    residual_scale: float = 2.0
    clip_z0: float = 1.0
    lr_divisor: int = 256
    anchor: Literal["base", "bicubic"] = "base"
    restorer_blocks: int = 0
    injection: bool = False


#: The released DF2K ×4 and CelebA ×8 checkpoints, and the compact network this project trains.
SRDIFF_DF2K = SRDiffConfig()
SRDIFF_CELEBA = SRDiffConfig(
    scale=8, dim_mults=(1, 2, 2, 4), encoder_channels=32, encoder_blocks=8, encoder_growth=16
)

SRDIFF_COMPACT = SRDiffConfig(
    dim_mults=(1, 2, 2),
    unet_blocks=1,
    unshuffle=4,
    mask_input=True,
    encoder="residual",
    encoder_blocks=12,
    num_steps=1000,
    alpha_bar_min=1e-4,
    prediction="x0",
    residual_scale=3.0,
    clip_z0=0.0,
    lr_divisor=255,
)


class SRDiff(Backbone):
    """The backbone; its state dict has the published keys ``denoise_fn.*`` and ``rrdb.*``."""

    def __init__(self, config: SRDiffConfig) -> None:
        super().__init__()
        self.config = config
        self.prediction = config.prediction
        self.schedule = _schedule(config)
        self.is_compact = config.encoder == "residual"
        _check(config)
        channels = config.encoder_channels
        if self.is_compact:
            self.encoder = LREncoder(channels, config.encoder_blocks, config.scale)
            cond_dim, cond_scale = channels + 3 * config.scale**2, 1
        else:
            self.rrdb = RRDBNet(
                num_feat=channels,
                num_block=config.encoder_blocks,
                growth=config.encoder_growth,
                scale=config.scale,
            )
            cond_dim, cond_scale = channels * ((config.encoder_blocks + 1) // 3), config.scale
        self.denoise_fn = SRDiffUNet(
            config.dim,
            config.dim_mults,
            cond_dim=cond_dim,
            cond_scale=cond_scale,
            unshuffle=config.unshuffle,
            blocks=config.unet_blocks,
            mask_input=config.mask_input,
        )
        blocks = config.restorer_blocks
        self.restorer = Restorer(blocks) if blocks > 0 else None
        self.restores_from = math.inf if self.restorer is None else FROM
        self.injection = Injection(config.dim) if config.injection else None
        self.takes_gains = config.injection
        levels = len(config.dim_mults)
        grid = config.unshuffle * 2 ** (levels - 1)  # HR pixels that one lowest cell spans
        # Two 3×3 convolutions a block, on the way down and up, widest at the bottom. The compact
        # network hardly uses that reach: 15 steps with a halo of 32 are 50 to 70 dB from those
        # without tiles, 47 to 66 dB with 16.
        reach = 2 * (config.unet_blocks + 1)
        halo = grid * (2 if self.is_compact else reach)
        self.geometry = Geometry(
            scale=config.scale,
            stride=max(grid // config.scale, 1),
            halo=halo,
            plan_halo=grid if self.is_compact else halo,
            pixel_bytes=4 * config.dim * 16 // config.unshuffle**2 + 64,
        )

    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        if self.is_compact:
            return self.encode_compact(lr, strength, bool((torch.as_tensor(strength) > FROM).any()))
        lr_up = self._enlarged(lr)
        features = self.rrdb.features(lr * 2 - 1)
        projected = self.denoise_fn.project(torch.cat(features[2::3], dim=1))
        return Condition(torch.zeros_like(lr_up), {"features": projected, "anchor": lr_up})

    def survey(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        if self.is_compact:
            return self.encode_compact(lr, strength, restored=False)
        return self.encode(lr, strength)

    def encode_compact(self, lr: Tensor, strength: float | Tensor, restored: bool) -> Condition:
        """``encode`` of a compact network; ``restored``: damaged pictures are, if it knows how.

        The denoiser sees the base as it was, and its residual is added to the restored one: what
        it draws in a damaged picture does not depend on how sharp the base is.
        """
        lr_up = self._enlarged(lr)
        encoding = self.encoder(lr, lr_up, strength)
        seen = F.pixel_unshuffle(encoding.base.detach() - 0.5, self.config.scale)
        seen = seen.to(encoding.features.dtype)  # it is rounded to that in the projection anyway
        projected = self.denoise_fn.project(torch.cat([encoding.features, seen], dim=1))
        base, detail = encoding.base, {}
        if restored and self.restorer is not None:
            share = share_of(torch.as_tensor(strength)).to(base).view(-1, 1, 1, 1)
            picture = self.restorer(lr).to(base.dtype)
            base, detail["detail"] = with_restored(base, picture, share)
        return Condition(
            lr_up.new_zeros(1, 1, 1, 1).expand_as(lr_up),  # holds one number
            {
                "features": projected,
                "anchor": base if self.config.anchor == "base" else lr_up,
                "base": base,
                "difficulty": encoding.difficulty,
                **detail,
            },
            self.encoder.attention(encoding.difficulty),
        )

    def _enlarged(self, lr: Tensor) -> Tensor:
        return imresize(lr * (255 / self.config.lr_divisor), scale=self.config.scale)

    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        features = condition.maps["features"]
        if self.injection is not None:
            features = self.injection(features, condition.gains)
        out: Tensor = self.denoise_fn(z_t, t - 1, features, mask)
        return out.float()

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        return predict_clipped(self, z_t, t, condition, mask, self.config.clip_z0)

    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        # Residuals are those of images in [-1, 1]: half as large in [0, 1].
        residual = clip_to(z_0, self.config.clip_z0)
        if (detail := condition.maps.get("detail")) is not None:
            residual = residual * detail
        return condition.maps["anchor"].add(residual, alpha=0.5 / self.config.residual_scale)

    def to_z(self, hr: Tensor, condition: Condition) -> Tensor:
        residual = (hr - condition.maps["anchor"].detach()) * (2 * self.config.residual_scale)
        return clip_to(residual, self.config.clip_z0)


def _check(config: SRDiffConfig) -> None:
    """ValueError for a network that cannot be."""
    is_compact = config.encoder == "residual"
    if is_compact != (config.unshuffle == config.scale):
        raise ValueError("the residual encoder needs unshuffle == scale, the RRDB unshuffle 1")
    if config.injection and not is_compact:
        raise ValueError("injection is for compact networks, with the residual encoder")
    if config.restorer_blocks > 0 and (not is_compact or config.scale != SCALE):
        raise ValueError(f"a restorer is for compact networks that enlarge by {SCALE}")


def _schedule(config: SRDiffConfig) -> NoiseSchedule:
    schedule = make_schedule(
        config.schedule,
        config.num_steps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        cosine_s=config.cosine_s,
        alpha_bar_min=config.alpha_bar_min,
    )
    if config.schedule == "linear" and config.encoder == "rrdb":
        # The published code ends a linear chain of residuals in (almost) pure noise.
        beta = schedule.beta[1:].clone()
        beta[-1] = 0.999
        return schedule_from_betas(beta)
    return schedule


def from_config(config: Mapping[str, Any]) -> SRDiff:
    """Build from plain data, as a checkpoint's metadata or a recipe holds it."""
    return SRDiff(build_config(SRDiffConfig, config))


def infer_config(state: Mapping[str, Tensor]) -> SRDiffConfig:
    """The configuration of a published checkpoint from its tensors' shapes alone."""
    dim = state["denoise_fn.mlp.0.weight"].shape[1]
    levels = sum(f"denoise_fn.downs.{i}.0.block1.block.1.weight" in state for i in range(16))
    widths = [
        state[f"denoise_fn.downs.{i}.0.block1.block.1.weight"].shape[0] for i in range(levels)
    ]
    blocks = sum(f"rrdb.RRDB_trunk.{i}.RDB1.conv1.weight" in state for i in range(256))
    return SRDiffConfig(
        scale=8 if "rrdb.upconv3.weight" in state else 4,
        dim=dim,
        dim_mults=tuple(width // dim for width in widths),
        encoder_channels=state["rrdb.conv_first.weight"].shape[0],
        encoder_blocks=blocks,
        encoder_growth=state["rrdb.RRDB_trunk.0.RDB1.conv1.weight"].shape[0],
    )
