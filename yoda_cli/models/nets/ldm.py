"""Networks of Stable Diffusion 2 and DiffBIR, from diffusers' blocks, under their published names.

diffusers and CompVis's LDM name the same tensors differently; the tables here go from one to the
other in both directions. Configurations are inferred from the published tensors' names and shapes.
A 1×1 convolution of the VAE's attention is a linear layer in diffusers: only the shape differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yoda_cli.errors import need

HEAD_DIM = 64  # of Stable Diffusion 2; cannot be told from the tensors
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}

VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


@dataclass(frozen=True)
class UNetConfig:
    """The shape of an LDM U-Net, or of a ControlNet that copies its first half."""

    in_channels: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    context: int
    head_dim: int = HEAD_DIM
    depth: int = 1


@dataclass(frozen=True)
class VAEConfig:
    """The shape of an LDM autoencoder."""

    channels: tuple[int, ...]
    blocks: int
    latent: int


def infer_levels(
    state: Mapping[str, Any], attention_key: str
) -> tuple[tuple[int, ...], int, tuple[bool, ...]]:
    """Of ``input_blocks``: channels of each level, blocks a level, and whether a level has
    attention, which shows in ``attention_key`` of its first block."""
    numbers = {int(m[1]) for key in state if (m := re.match(r"input_blocks\.(\d+)\.", key))}
    channels: list[int] = []
    attention: list[bool] = []
    blocks = 0
    for index in sorted(numbers - {0}):
        here = f"input_blocks.{index}"
        if f"{here}.0.op.weight" in state:
            blocks = 0
            continue
        if blocks == 0:
            channels.append(int(state[f"{here}.0.out_layers.3.weight"].shape[0]))
            attention.append(f"{here}.{attention_key}" in state)
        blocks += 1
    return tuple(channels), blocks, tuple(attention)


def infer_unet(state: Mapping[str, Any], head_dim: int = HEAD_DIM) -> UNetConfig:
    """From LDM names; works for a U-Net and for a ControlNet."""
    inside = re.compile(r"middle_block\.1\.transformer_blocks\.(\d+)\.")
    depths = {match[1] for key in state if (match := inside.match(key))}
    context = state["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    return UNetConfig(
        int(state["input_blocks.0.0.weight"].shape[1]), *infer_levels(state, "1.norm.weight"),
        int(context), head_dim, len(depths),
    )  # fmt: skip


def infer_vae(state: Mapping[str, Any]) -> VAEConfig:
    """From LDM names."""
    levels = {int(m[1]) for key in state if (m := re.match(r"encoder\.down\.(\d+)\.", key))}
    blocks = {int(m[1]) for key in state if (m := re.match(r"encoder\.down\.0\.block\.(\d+)", key))}
    channels = (
        int(state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0]) for level in levels
    )
    return VAEConfig(
        tuple(channels), len(blocks), int(state["post_quant_conv.weight"].shape[1])
    )  # fmt: skip


def make_unet(config: UNetConfig) -> nn.Module:
    """diffusers' U-Net of this shape; 4 output channels."""
    need("diffusers", "diffbir")
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in config.attention]
    up = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(config.attention)]
    net: nn.Module = UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=4,
        block_out_channels=config.channels,
        layers_per_block=config.blocks,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        cross_attention_dim=config.context,
        # The argument's name is a mistake that diffusers keeps: it is the number of heads.
        attention_head_dim=tuple(n // config.head_dim for n in config.channels),
        transformer_layers_per_block=config.depth,
        use_linear_projection=True,
    )
    return net


class ControlNet(nn.Module):
    """DiffBIR's ControlNet: no hint stack, the condition latent is concatenated to the state."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        whole: Any = make_unet(config)
        self.time_proj, self.time_embedding = whole.time_proj, whole.time_embedding
        self.conv_in, self.down_blocks = whole.conv_in, whole.down_blocks
        self.mid_block = whole.mid_block
        skips = [config.channels[0]]
        for level, width in enumerate(config.channels):
            skips += [width] * (config.blocks + int(level + 1 < len(config.channels)))
        self.zero_convs = nn.ModuleList(nn.Conv2d(n, n, 1) for n in skips)
        self.middle_block_out = nn.Conv2d(config.channels[-1], config.channels[-1], 1)

    def forward(self, z_t: Tensor, t: Tensor, context: Tensor, hint: Tensor) -> list[Tensor]:
        """Controls, fine to coarse, the middle's last; ``t`` (B,) counts from 0."""
        time = self.time_embedding(self.time_proj(t).to(self.conv_in.weight.dtype))
        h = self.conv_in(torch.cat([z_t, hint], 1))
        skips = (h,)
        for block in self.down_blocks:
            if getattr(block, "has_cross_attention", False):
                h, new = block(h, time, encoder_hidden_states=context)
            else:
                h, new = block(h, time)
            skips += new
        h = self.mid_block(h, time, encoder_hidden_states=context)
        controls = [conv(skip) for conv, skip in zip(self.zero_convs, skips, strict=True)]
        return [*controls, self.middle_block_out(h)]


def make_vae(config: VAEConfig) -> nn.Module:
    """diffusers' autoencoder of this shape."""
    need("diffusers", "diffbir")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(config.channels)
    net: nn.Module = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=config.channels,
        layers_per_block=config.blocks,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=config.latent,
    )
    return net


def unet_name(key: str, config: UNetConfig) -> str:
    """The LDM name of a tensor of ``make_unet``'s or of ``ControlNet``."""
    rules: list[tuple[str, Callable[[re.Match[str]], str]]] = [
        (r"time_embedding\.linear_1\.(.+)", lambda m: f"time_embed.0.{m[1]}"),
        (r"time_embedding\.linear_2\.(.+)", lambda m: f"time_embed.2.{m[1]}"),
        (r"conv_in\.(.+)", lambda m: f"input_blocks.0.0.{m[1]}"),
        (r"conv_norm_out\.(.+)", lambda m: f"out.0.{m[1]}"),
        (r"conv_out\.(.+)", lambda m: f"out.2.{m[1]}"),
        (r"zero_convs\.(\d+)\.(.+)", lambda m: f"zero_convs.{m[1]}.0.{m[2]}"),
        (r"middle_block_out\.(.+)", lambda m: f"middle_block_out.0.{m[1]}"),
        (r"mid_block\.attentions\.0\.(.+)", lambda m: f"middle_block.1.{m[1]}"),
        (
            r"mid_block\.resnets\.(\d)\.(.+)",
            lambda m: f"middle_block.{2 * int(m[1])}.{_part(m[2], RESNET)}",
        ),
        (r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", lambda m: _block_name(m, config)),
    ]
    for pattern, name in rules:
        if (match := re.fullmatch(pattern, key)) is not None:
            return name(match)
    raise ValueError(f"no LDM name for {key}")


def _block_name(match: re.Match[str], config: UNetConfig) -> str:
    side, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if side == "down":
        first = 1 + level * (config.blocks + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + config.blocks}.0.op.{rest.removeprefix('conv.')}"
        where = f"input_blocks.{first + index}"
    else:
        first = level * (config.blocks + 1)
        if kind == "upsamplers":
            has_attention = config.attention[len(config.attention) - 1 - level]
            return f"output_blocks.{first + config.blocks}.{1 + int(has_attention)}.{rest}"
        where = f"output_blocks.{first + index}"
    return f"{where}.0.{_part(rest, RESNET)}" if kind == "resnets" else f"{where}.1.{rest}"


def vae_name(key: str, config: VAEConfig) -> str:
    """The LDM name of a tensor of ``make_vae``'s."""
    last = len(config.channels) - 1
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(
        r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", key
    )
    key = re.sub(
        r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", key
    )
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    where, found, rest = key.partition("mid_block.attentions.0.")
    return f"{where}mid.attn_1.{_part(rest, VAE_ATTENTION)}" if found else key


def _part(rest: str, table: Mapping[str, str]) -> str:
    """``rest`` with the name before its last dot looked up."""
    name, _, leaf = rest.rpartition(".")
    return f"{table[name]}.{leaf}"
