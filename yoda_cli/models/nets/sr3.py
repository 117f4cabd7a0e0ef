"""SR3's U-Net (Saharia et al., arXiv:2104.07636) as the public implementation lays it out.

The defaults are the published network and its key names, down to ``downs`` being one flat list.
Options for CPUs: work on pixel-unshuffled input, normalise over channels, add encoder features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.models.nets.layers import ChannelNorm

Norm = Literal["group", "channel"]
#: Of each resolution, the finest first: channels, and whether its blocks have attention.
Levels = Sequence[tuple[int, bool]]


class MakeBlock(Protocol):
    """A residual block between two numbers of channels."""

    def __call__(self, dim: int, dim_out: int, *, attend: bool) -> nn.Module: ...


class NoiseLevelEncoding(nn.Module):
    """(B, 1) noise levels √ᾱ → (B, 1, dim): sines, then cosines."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, level: Tensor) -> Tensor:
        count = self.dim // 2
        rate = torch.arange(count, dtype=level.dtype, device=level.device) / count
        angle = level.unsqueeze(1) * torch.exp(-math.log(1e4) * rate.unsqueeze(0))
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Swish(nn.Module):
    """x·σ(x), in the published order of operations."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class NoiseShift(nn.Module):
    """Adds one number per channel, linear in the noise embedding."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.noise_func = nn.Sequential(nn.Linear(dim, channels))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        out: Tensor = x + self.noise_func(noise).view(x.shape[0], -1, 1, 1)
        return out


def _norm(kind: Norm, groups: int, channels: int) -> nn.Module:
    return ChannelNorm(channels) if kind == "channel" else nn.GroupNorm(groups, channels)


class Block(nn.Module):
    """Norm, swish, dropout, 3×3 convolution."""

    def __init__(self, dim: int, dim_out: int, norm: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        drop = nn.Dropout(dropout) if dropout else nn.Identity()
        self.block = nn.Sequential(norm, Swish(), drop, nn.Conv2d(dim, dim_out, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out


class ResnetBlock(nn.Module):
    """Two blocks with the noise level added between them, and a (projected) shortcut."""

    def __init__(
        self, dim: int, dim_out: int, noise_dim: int, norm: Norm, groups: int, dropout: float
    ) -> None:
        super().__init__()
        self.noise_func = NoiseShift(noise_dim, dim_out)
        self.block1 = Block(dim, dim_out, _norm(norm, groups, dim))
        self.block2 = Block(dim_out, dim_out, _norm(norm, groups, dim_out), dropout)
        self.res_conv = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        h = self.block2(self.noise_func(self.block1(x), noise))
        out: Tensor = h + self.res_conv(x)
        return out


class SelfAttention(nn.Module):
    """Single-head attention over the whole map, added to its input."""

    def __init__(self, channels: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.qkv = nn.Conv2d(channels, channels * 3, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        q, k, v = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)  # (B, C, HW) each
        weight = torch.einsum("bcq,bck->bqk", q, k) / math.sqrt(channels)
        mixed = torch.einsum("bqk,bck->bcq", weight.softmax(dim=-1), v)
        out: Tensor = x + self.out(mixed.view(batch, channels, height, width))
        return out


class ResnetBlockWithAttention(nn.Module):
    """A residual block, and attention where the level has it."""

    def __init__(self, res_block: ResnetBlock, attn: SelfAttention | None) -> None:
        super().__init__()
        self.res_block = res_block
        if attn is not None:
            self.attn = attn
        self.has_attention = attn is not None

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        x = self.res_block(x, noise)
        return self.attn(x) if self.has_attention else x


class Downsample(nn.Module):
    """Half the size by a stride-2 convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Double the size: nearest, then a convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return out


def _way_down(
    stem: nn.Module, width: int, levels: Levels, blocks: int, block: MakeBlock
) -> tuple[nn.ModuleList, list[int]]:
    """The layers before the middle, and the channels that each leaves."""
    layers, skips = [stem], [width]
    for level, (dim, attend) in enumerate(levels):
        for _ in range(blocks):
            layers.append(block(skips[-1], dim, attend=attend))
            skips.append(dim)
        if level < len(levels) - 1:
            layers.append(Downsample(dim))
            skips.append(dim)
    return nn.ModuleList(layers), skips


def _way_up(skips: list[int], levels: Levels, blocks: int, block: MakeBlock) -> nn.ModuleList:
    """The layers after the middle; each block takes what one layer of the way down left."""
    layers: list[nn.Module] = []
    width, left = skips[-1], list(skips)
    for level, (dim, attend) in reversed(list(enumerate(levels))):
        for _ in range(blocks):
            layers.append(block(width + left.pop(), dim, attend=attend))
            width = dim
        if level > 0:
            layers.append(Upsample(dim))
    return nn.ModuleList(layers)


class SR3UNet(nn.Module):
    """``forward(x, level[, features])``: x (B, in_channel, H, W), level (B, 1) = √ᾱ → eps or like.

    ``attn_levels`` are the levels (0 the finest) whose blocks have attention; ``mid_attention``
    is off only in local networks. With ``unshuffle`` f the network runs on a grid f times coarser,
    where the stem adds ``features`` (B, inner_channel, H/f, W/f), the output of ``project``.
    """

    def __init__(
        self,
        *,
        in_channel: int = 6,
        out_channel: int = 3,
        inner_channel: int = 64,
        channel_mults: tuple[int, ...] = (1, 2, 4, 8, 8),
        res_blocks: int = 2,
        attn_levels: tuple[int, ...] = (3,),
        mid_attention: bool = True,
        norm: Norm = "group",
        norm_groups: int = 32,
        dropout: float = 0.0,
        unshuffle: int = 1,
        feature_channels: int = 0,
    ) -> None:
        super().__init__()
        inner, cells = inner_channel, unshuffle**2
        self.unshuffle = unshuffle
        self.noise_level_mlp = nn.Sequential(
            NoiseLevelEncoding(inner),
            nn.Linear(inner, inner * 4),
            Swish(),
            nn.Linear(inner * 4, inner),
        )

        def block(dim: int, dim_out: int, *, attend: bool) -> ResnetBlockWithAttention:
            res = ResnetBlock(dim, dim_out, inner, norm, norm_groups, dropout)
            return ResnetBlockWithAttention(
                res, SelfAttention(dim_out, _norm(norm, norm_groups, dim_out)) if attend else None
            )

        levels = [(inner * m, level in attn_levels) for level, m in enumerate(channel_mults)]
        stem = nn.Conv2d(in_channel * cells, inner, 3, padding=1)
        self.downs, skips = _way_down(stem, inner, levels, res_blocks, block)
        width = skips[-1]
        self.mid = nn.ModuleList(
            [block(width, width, attend=mid_attention), block(width, width, attend=False)]
        )
        self.ups = _way_up(skips, levels, res_blocks + 1, block)
        finest = levels[0][0]
        self.final_conv = Block(finest, out_channel * cells, _norm(norm, norm_groups, finest))
        if feature_channels:
            self.feature_proj = nn.Conv2d(feature_channels, inner, 3, padding=1)

    def project(self, features: Tensor) -> Tensor:
        """Encoder features as the stem adds them; the same at every t."""
        out: Tensor = self.feature_proj(features)
        return out

    def forward(self, x: Tensor, level: Tensor, features: Tensor | None = None) -> Tensor:
        noise = self.noise_level_mlp(level)
        if self.unshuffle > 1:
            x = F.pixel_unshuffle(x, self.unshuffle)
        skips: list[Tensor] = []
        for i, layer in enumerate(self.downs):
            x = layer(x, noise) if isinstance(layer, ResnetBlockWithAttention) else layer(x)
            if i == 0 and features is not None:
                x = x + features
            skips.append(x)
        for layer in self.mid:
            x = layer(x, noise)
        for layer in self.ups:
            if isinstance(layer, ResnetBlockWithAttention):
                x = layer(torch.cat([x, skips.pop()], dim=1), noise)
            else:
                x = layer(x)
        out: Tensor = self.final_conv(x)
        return F.pixel_shuffle(out, self.unshuffle) if self.unshuffle > 1 else out
