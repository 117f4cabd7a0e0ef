"""SR3: diffusion of the picture itself, conditioned on its bicubic enlargement and √ᾱ.

Published configurations keep their conventions: images in [-1, 1], concat[bicubic, z_t], eps
prediction, ẑ_0 clipped, T = 2000 linear. The compact form diffuses the residual against a small
encoder's regression base, as the compact SRDiff does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yoda_cli.diffusion.schedule import Prediction, ScheduleKind, make_schedule
from yoda_cli.images.resize import imresize
from yoda_cli.models.backbone import Backbone, predict_clipped
from yoda_cli.models.base import Condition, build_config
from yoda_cli.models.nets.encoder import LREncoder
from yoda_cli.models.nets.injection import Injection
from yoda_cli.models.nets.sr3 import Norm, SR3UNet
from yoda_cli.tiling.geometry import Geometry


@dataclass(frozen=True)
class SR3Config:
    """Everything that fixes the network and its diffusion space.

    ``encoder_blocks`` > 0 selects the compact form: residual against the encoder's base, times
    ``residual_scale`` (of images in [-1, 1]). ``clip_z0`` clamps ẑ_0 to ± that, 0 leaves it. With
    ``injection`` the compact form's features are steered by what the last step gained.
    """

    scale: int = 8
    inner_channel: int = 64
    channel_mults: tuple[int, ...] = (1, 2, 4, 8, 8)
    res_blocks: int = 2
    attn_levels: tuple[int, ...] = (3,)
    mid_attention: bool = True
    norm: Norm = "group"
    norm_groups: int = 32
    dropout: float = 0.2
    num_steps: int = 2000
    schedule: ScheduleKind = "linear"
    beta_start: float = 1e-6
    beta_end: float = 1e-2
    alpha_bar_min: float = 0.0
    prediction: Prediction = "eps"
    clip_z0: float = 1.0
    unshuffle: int = 1
    mask_input: bool = False
    encoder_channels: int = 64
    encoder_blocks: int = 0
    residual_scale: float = 1.0
    injection: bool = False


#: The published 16→128 and 64→512 networks, and a compact one of ours.
SR3_16_128 = SR3Config()
SR3_64_512 = SR3Config(
    channel_mults=(1, 2, 4, 8, 16), res_blocks=1, attn_levels=(), norm_groups=16, dropout=0.0
)

SR3_COMPACT = SR3Config(
    scale=4,
    channel_mults=(1, 2, 2),
    res_blocks=1,
    attn_levels=(),
    mid_attention=False,
    norm="channel",
    dropout=0.0,
    num_steps=1000,
    schedule="cosine",
    alpha_bar_min=1e-4,
    prediction="x0",
    clip_z0=0.0,
    unshuffle=4,
    mask_input=True,
    encoder_blocks=12,
    residual_scale=3.0,
)


class SR3(Backbone):
    """The backbone; its state dict has the published keys ``denoise_fn.*``."""

    def __init__(self, config: SR3Config) -> None:
        super().__init__()
        self.config = config
        self.prediction = config.prediction
        self.schedule = make_schedule(
            config.schedule,
            config.num_steps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            alpha_bar_min=config.alpha_bar_min,
        )
        self.is_compact = config.encoder_blocks > 0
        if self.is_compact and config.unshuffle != config.scale:
            raise ValueError("the encoder's grid needs unshuffle == scale")
        if config.injection and not self.is_compact:
            raise ValueError("injection is for compact networks, with encoder_blocks above 0")
        if self.is_compact:
            self.encoder = LREncoder(config.encoder_channels, config.encoder_blocks, config.scale)
        self.denoise_fn = SR3UNet(
            in_channel=6 + int(config.mask_input),
            inner_channel=config.inner_channel,
            channel_mults=config.channel_mults,
            res_blocks=config.res_blocks,
            attn_levels=config.attn_levels,
            mid_attention=config.mid_attention,
            norm=config.norm,
            norm_groups=config.norm_groups,
            dropout=config.dropout,
            unshuffle=config.unshuffle,
            feature_channels=config.encoder_channels if self.is_compact else 0,
        )
        self.injection = Injection(config.inner_channel) if config.injection else None
        self.takes_gains = config.injection
        grid = config.unshuffle * 2 ** (len(config.channel_mults) - 1)
        reach = 2 * (config.res_blocks + 1)  # lowest cells: two 3×3 convolutions a block
        halo = grid * (2 if self.is_compact else reach)
        self.geometry = Geometry(
            scale=config.scale,
            stride=grid // math.gcd(grid, config.scale),
            halo=halo,
            plan_halo=grid if self.is_compact else halo,
            pixel_bytes=4 * config.inner_channel * 16 // config.unshuffle**2 + 64,
        )

    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        lr_up = imresize(lr, scale=self.config.scale)
        if not self.is_compact:
            z_lr = lr_up * 2 - 1
            return Condition(z_lr, {"seen": z_lr})
        encoding = self.encoder(lr, lr_up, strength)
        maps = {
            "seen": encoding.base.detach() * 2 - 1,
            "features": self.denoise_fn.project(encoding.features),
            "base": encoding.base,
            "difficulty": encoding.difficulty,
        }
        attention = self.encoder.attention(encoding.difficulty)
        return Condition(lr_up.new_zeros(1, 1, 1, 1).expand_as(lr_up), maps, attention)

    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        level, _ = self.schedule.levels(t.view(-1, 1))
        parts = [condition.maps["seen"], z_t]
        if self.config.mask_input:
            parts.append(mask.to(z_t.dtype))
        x = torch.cat(parts, dim=1)
        features = condition.maps.get("features")
        if self.injection is not None and features is not None:
            features = self.injection(features, condition.gains)
        out: Tensor = self.denoise_fn(x, level, features)
        return out.float()

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        return predict_clipped(self, z_t, t, condition, mask, self.config.clip_z0)

    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        if not self.is_compact:
            return (z_0 + 1) / 2
        return condition.maps["base"].add(z_0, alpha=0.5 / self.config.residual_scale)

    def to_z(self, hr: Tensor, condition: Condition) -> Tensor:
        if not self.is_compact:
            return hr * 2 - 1
        return (hr - condition.maps["base"].detach()) * (2 * self.config.residual_scale)


def from_config(config: Mapping[str, Any]) -> SR3:
    """Build from plain data, as a checkpoint's metadata or a recipe holds it."""
    return SR3(build_config(SR3Config, config))


def infer_config(state: Mapping[str, Tensor], *, scale: int = 8) -> SR3Config:
    """The configuration of a published checkpoint from its tensors' shapes.

    Shapes do not tell the number of norm groups: as published, 32 where any level of the way down
    has attention (16→128), 16 where none has (64→512). Dropout does not matter for inference.
    """
    inner = state["denoise_fn.noise_level_mlp.1.weight"].shape[1]
    widths: list[int] = []
    attention: list[int] = []
    blocks, level, index = 0, 0, 1
    while f"denoise_fn.downs.{index}.conv.weight" in state or _block(index) in state:
        if _block(index) in state:
            if len(widths) <= level:
                widths.append(state[_block(index)].shape[0])
            blocks += level == 0
            if f"denoise_fn.downs.{index}.attn.qkv.weight" in state and level not in attention:
                attention.append(level)
        else:
            level += 1
        index += 1
    return SR3Config(
        scale=scale,
        inner_channel=inner,
        channel_mults=tuple(width // inner for width in widths),
        res_blocks=blocks,
        attn_levels=tuple(attention),
        norm_groups=32 if attention else 16,
        dropout=0.0,
    )


def _block(index: int) -> str:
    return f"denoise_fn.downs.{index}.res_block.block1.block.3.weight"
