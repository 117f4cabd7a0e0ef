"""SRDiff's U-Net (Li et al., arXiv:2104.14951), with options that make it small and local.

The defaults are the published network and its key names. It carries no GroupNorm; widths grow by
``dim_mults``; encoder features join after the first level; that level's skip is never read.
Options for CPUs: work on pixel-unshuffled states, normalise over channels, read the mask.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.models.nets.layers import ChannelNorm, pixel_unshuffle, silu


class SinusoidalEmbedding(nn.Module):
    """(B,) times → (B, dim): sines then cosines, frequencies 10⁴^(-k/(dim/2-1))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        half = self.dim // 2
        rate = math.log(10_000) / (half - 1)
        frequency = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * -rate)
        angle = t.float()[:, None] * frequency[None, :]
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Mish(nn.Module):
    """x·tanh(softplus x), in the published order of operations: rounding at ᾱ_T ~ 1e-6 tells."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tanh(F.softplus(x))


class ConvBlock(nn.Module):
    """Reflection-padded 3×3 convolution and activation; with ``normalise``, ChannelNorm first."""

    def __init__(
        self, dim: int, dim_out: int, *, compact: bool = False, norm: bool = False
    ) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim) if norm else None
        self.compact = compact
        if compact:
            conv = nn.Conv2d(dim, dim_out, 3, padding=1)
            self.block = nn.Sequential(nn.Identity(), conv, nn.SiLU())
        else:
            conv = nn.Conv2d(dim, dim_out, 3)
            self.block = nn.Sequential(nn.ReflectionPad2d(1), conv, Mish())

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.norm is None else self.norm(x)
        if self.compact:
            return silu(self.block[1](x))
        out: Tensor = self.block(x)
        return out


class ResnetBlock(nn.Module):
    """Two ConvBlocks with the time added between them, and a (projected) shortcut."""

    def __init__(self, dim: int, dim_out: int, time_dim: int, *, compact: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU() if compact else Mish(), nn.Linear(time_dim, dim_out))
        self.block1 = ConvBlock(dim, dim_out, compact=compact, norm=compact)
        self.block2 = ConvBlock(dim_out, dim_out, compact=compact)
        self.res_conv = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.block1(x).add_(self.mlp(time)[:, :, None, None])
        out: Tensor = self.block2(h).add_(self.res_conv(x))
        return out


class Downsample(nn.Module):
    """Half the size by a stride-2 convolution."""

    def __init__(self, dim: int, *, compact: bool) -> None:
        super().__init__()
        pad = nn.Identity() if compact else nn.ReflectionPad2d(1)
        self.conv = nn.Sequential(pad, nn.Conv2d(dim, dim, 3, stride=2, padding=int(compact)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Double the size by a transposed convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.ConvTranspose2d(dim, dim, 4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Level(nn.ModuleList):
    """Residual blocks of one width, then a change of resolution: entries 0 … blocks."""

    def __init__(
        self,
        dim: int,
        width: int,
        time_dim: int,
        blocks: int,
        resample: nn.Module,
        *,
        compact: bool,
    ) -> None:
        widths = [dim, *[width] * blocks]
        parts = [ResnetBlock(a, b, time_dim, compact=compact) for a, b in pairwise(widths)]
        super().__init__([*parts, resample])

    def blocks(self, x: Tensor, time: Tensor) -> Tensor:
        for block in list(self)[:-1]:
            x = block(x, time)
        return x

    def resample(self, x: Tensor) -> Tensor:
        out: Tensor = self[-1](x)
        return out


def _conditioner(features: int, dim: int, scale: int) -> nn.Module:
    """From the encoder's grid to the state's, ``scale`` times finer."""
    if scale == 1:
        return nn.Conv2d(features, dim, 3, padding=1)
    return nn.ConvTranspose2d(features, dim, scale * 2, scale, scale // 2)


class SRDiffUNet(nn.Module):
    """The denoiser. Its sides must divide by 2^levels (2^(levels-1) when compact), × ``unshuffle``.

    ``forward(x, t, features[, mask])``: x (B, out_dim, H, W); t (B,) 0-based as trained; features
    the output of ``project``; mask (B, 1, H, W) if ``mask_input``.

    ``cond_scale`` is the factor between the encoder's grid and the (unshuffled) state's.
    ``unshuffle`` 1 is the published network; any other value selects the compact form: zero
    padding, SiLU, ChannelNorm, ``blocks`` residual blocks per level and the top skip in use.
    """

    def __init__(
        self,
        dim: int = 64,
        dim_mults: tuple[int, ...] = (1, 2, 3, 4),
        *,
        cond_dim: int = 384,
        cond_scale: int = 4,
        out_dim: int = 3,
        unshuffle: int = 1,
        blocks: int = 2,
        mask_input: bool = False,
    ) -> None:
        super().__init__()
        compact = unshuffle > 1
        self.unshuffle, self.mask_input, self.compact = unshuffle, mask_input, compact
        cells = unshuffle**2
        x_dim = (out_dim + int(mask_input)) * cells
        self.cond_proj = _conditioner(cond_dim, dim, cond_scale)
        self.time_pos_emb = SinusoidalEmbedding(dim)
        act = nn.SiLU() if compact else Mish()
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), act, nn.Linear(dim * 4, dim))

        widths = [dim * m for m in dim_mults]
        before = [dim if compact else x_dim, *widths[:-1]]
        if compact:
            self.stem = nn.Conv2d(x_dim, dim, 3, padding=1)

        last = len(widths) - 1
        self.downs = nn.ModuleList(
            Level(a, b, dim, blocks,
                  Downsample(b, compact=compact) if i < last else nn.Identity(), compact=compact)
            for i, (a, b) in enumerate(zip(before, widths, strict=True))
        )  # fmt: skip
        self.mid_block1 = ResnetBlock(widths[-1], widths[-1], dim, compact=compact)
        self.mid_block2 = ResnetBlock(widths[-1], widths[-1], dim, compact=compact)
        # The published network leaves the top level out of the way up.
        lowest = 0 if compact else 1
        narrower = [widths[max(i - 1, 0)] for i in range(last + 1)]
        self.ups = nn.ModuleList(
            Level(widths[i] * 2, narrower[i], dim, blocks,
                  Upsample(narrower[i]) if i > 0 else nn.Identity(), compact=compact)
            for i in range(last, lowest - 1, -1)
        )  # fmt: skip
        self.final_conv = nn.Sequential(
            ConvBlock(dim, dim, compact=compact, norm=compact),
            nn.Conv2d(dim, out_dim * cells, 1),
        )

    def project(self, features: Tensor) -> Tensor:
        """Encoder features on the state's (unshuffled) grid; the same at every t."""
        out: Tensor = self.cond_proj(features)
        return out

    def forward(self, x: Tensor, t: Tensor, features: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x.to(features.dtype)  # the first convolution would round it to that
        if self.mask_input:
            assert mask is not None
            x = torch.cat([x, mask.to(x.dtype)], dim=1)
        if self.compact:
            x = self.stem(pixel_unshuffle(x, self.unshuffle)).add_(features)
        time = self.mlp(self.time_pos_emb(t).to(x.dtype))
        skips: list[Tensor] = []
        for i, level in enumerate(self.downs):
            assert isinstance(level, Level)
            x = level.blocks(x, time)
            if i == 0 and not self.compact:
                x = x + features
            skips.append(x)
            x = level.resample(x)
        x = self.mid_block2(self.mid_block1(x, time), time)
        for level in self.ups:
            assert isinstance(level, Level)
            x = level.blocks(torch.cat([x, skips.pop()], dim=1), time)
            x = level.resample(x)
        out: Tensor = self.final_conv(x)
        return F.pixel_shuffle(out, self.unshuffle) if self.compact else out
