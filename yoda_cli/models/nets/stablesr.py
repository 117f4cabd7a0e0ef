"""Networks of StableSR (arXiv:2305.07015) around Stable Diffusion 2, from diffusers' blocks.

Three parts: an encoder that turns the latent of the enlarged picture and the time into a feature
map for every level; the U-Net, each of whose residual blocks is modulated by its level's map; and
the VAE, whose decoder takes up features of the picture (controllable feature wrapping, CFW).
Own names differ from the published ones; the ``*_name`` functions lead from one to the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.errors import need
from yoda_cli.models.nets import ldm
from yoda_cli.models.nets.rrdb import RRDB

GROUPS = 32
EPS = 1e-5  # of every norm of encoder and modulation
VAE_EPS = 1e-6
HEADS = 4  # of the encoder's attention; cannot be told from the tensors
HIDDEN = 128  # channels inside a modulation
MODULATION = {
    "norm": "param_free_norm",
    "shared": "mlp_shared.0",
    "gamma": "mlp_gamma",
    "beta": "mlp_beta",
}
#: A fuse block's own names; its shortcut is called ``conv_out``.
FUSE = {"first": "encode_enc_1", "middle": "encode_enc_2", "last": "encode_enc_3"}
LEAF = re.compile(rf"(.+)\.({'|'.join(ldm.RESNET)})\.(weight|bias)")


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of a time-aware encoder; ``attention`` says which levels have it."""

    in_channels: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    out_channels: int
    heads: int = HEADS


@dataclass(frozen=True)
class WrapConfig:
    """The shape of a VAE with CFW: ``levels`` of the decoder have a fuse block."""

    vae: ldm.VAEConfig
    levels: tuple[int, ...]
    blocks: int
    growth: int


def infer_encoder(state: Mapping[str, Any]) -> EncoderConfig:
    """From published names."""
    return EncoderConfig(
        int(state["input_blocks.0.0.weight"].shape[1]), *ldm.infer_levels(state, "1.qkv.weight"),
        int(state["fea_tran.0.out_layers.3.weight"].shape[0]),
    )  # fmt: skip


def infer_wrapped_vae(state: Mapping[str, Any]) -> WrapConfig:
    """From published names."""
    fused = re.compile(r"decoder\.fusion_layer_(\d+)\.encode_enc_2\.(\d+)\.rdb1\.conv1\.weight")
    found = [(int(m[1]), int(m[2]), key) for key in state if (m := fused.fullmatch(key))]
    levels = sorted({level for level, _, _ in found})
    blocks = max((block for _, block, _ in found), default=-1) + 1
    growth = int(state[found[0][2]].shape[0]) if found else 0
    return WrapConfig(ldm.infer_vae(state), tuple(levels), blocks, growth)


def _residual_block(inside: int, out: int, time: int | None, eps: float) -> nn.Module:
    """Norm, SiLU, convolution, twice, with a shortcut; ``time`` channels are added between."""
    from diffusers.models.resnet import ResnetBlock2D

    make: Any = ResnetBlock2D  # its annotation leaves out None, its code does not
    block: nn.Module = make(
        in_channels=inside, out_channels=out, temb_channels=time, groups=GROUPS, eps=eps
    )
    return block


class HeadwiseAttention(nn.Module):
    """Self-attention over all pixels; q, k and v of one head lie together in ``qkv``."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels, eps=EPS)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x).flatten(2))  # (B, 3C, H·W)
        each = qkv.unflatten(1, (self.heads, 3, -1)).transpose(
            -1, -2
        )  # (B, heads, 3, H·W, C/heads)
        seen = F.scaled_dot_product_attention(*each.unbind(2))
        out: Tensor = self.proj_out(seen.transpose(-1, -2).flatten(1, 2))
        return x + out.view_as(x)


class Halving(nn.Module):
    """A convolution of stride 2; an odd side is rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class TimeAwareEncoder(nn.Module):
    """The latent of the enlarged picture at a time, as one feature map for each level."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        need("diffusers", "diffbir")
        from diffusers.models.embeddings import Timesteps

        width = config.channels[0]
        time = 4 * width
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embed = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.input_blocks = nn.ModuleList(
            [nn.ModuleList([nn.Conv2d(config.in_channels, width, 3, padding=1)])]
        )
        inside = width
        for level, out in enumerate(config.channels):
            if level > 0:
                self.input_blocks.append(nn.ModuleList([Halving(inside)]))
            for _ in range(config.blocks):
                layers = [_residual_block(inside, out, time, EPS)]
                if config.attention[level]:
                    layers.append(HeadwiseAttention(out, config.heads))
                self.input_blocks.append(nn.ModuleList(layers))
                inside = out
        self.middle_block = nn.ModuleList(
            [
                _residual_block(inside, inside, time, EPS),
                HeadwiseAttention(inside, config.heads),
                _residual_block(inside, inside, time, EPS),
            ]
        )
        self.fea_tran = nn.ModuleList(
            _residual_block(channels, config.out_channels, time, EPS)
            for channels in config.channels
        )

    def embed(self, t: Tensor) -> Tensor:
        """The embedding of times ``t`` (B,) in 0 … T-1."""
        dtype = self.time_embed[0].weight.dtype
        embedded: Tensor = self.time_embed(self.time_proj(t).to(dtype))
        return embedded

    def forward(self, z_lr: Tensor, t: Tensor) -> list[Tensor]:
        """Maps, fine to coarse, of ``z_lr`` (B, 4, h, w); sides halve from one to the next."""
        time = self.embed(t)
        levels: list[Tensor] = []
        h = z_lr
        for layers in self.input_blocks:
            if any(isinstance(layer, Halving) for layer in layers.children()):
                levels.append(h)
            h = _through(layers, h, time)
        levels.append(_through(self.middle_block, h, time))
        return [last(h, time) for last, h in zip(self.fea_tran, levels, strict=True)]


def _through(layers: nn.Module, h: Tensor, time: Tensor) -> Tensor:
    """One layer after the other; residual blocks read the time."""
    for layer in layers.children():
        h = layer(h, time) if hasattr(layer, "time_emb_proj") else layer(h)
    return h


class Modulation(nn.Module):
    """SPADE (Park et al., arXiv:1903.07291, eq. 1): GN(h)·(1 + γ) + β, both read off a map."""

    def __init__(self, channels: int, map_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, eps=EPS)
        self.shared = nn.Conv2d(map_channels, HIDDEN, 3, padding=1)
        self.gamma = nn.Conv2d(HIDDEN, channels, 3, padding=1)
        self.beta = nn.Conv2d(HIDDEN, channels, 3, padding=1)

    def forward(self, h: Tensor, features: Tensor) -> Tensor:
        """``h`` (B, C, H, W) and ``features`` (B, c, H, W) are of one size."""
        seen = F.relu(self.shared(features))
        out: Tensor = self.norm(h) * (1 + self.gamma(seen)) + self.beta(seen)
        return out


def modulated(
    block: Any, modulation: nn.Module, x: Tensor, time: Tensor, features: Tensor
) -> Tensor:
    """diffusers' residual block whose branch is modulated before it is added to the shortcut."""
    h = block.conv1(block.nonlinearity(block.norm1(x)))
    h = h + block.time_emb_proj(block.nonlinearity(time))[:, :, None, None]
    h = block.conv2(block.nonlinearity(block.norm2(h)))
    skip = x if block.conv_shortcut is None else block.conv_shortcut(x)
    out: Tensor = skip + modulation(h, features)
    return out


class ModulatedUNet(nn.Module):
    """Stable Diffusion's U-Net with every residual block modulated.

    A block takes the map of its own level; the reference finds it by its width, which is the same
    wherever the halvings of a side do not meet a length twice.
    """

    def __init__(self, config: ldm.UNetConfig, map_channels: int) -> None:
        super().__init__()
        whole: Any = ldm.make_unet(config)
        self.time_proj, self.time_embedding = whole.time_proj, whole.time_embedding
        self.conv_in, self.conv_norm_out = whole.conv_in, whole.conv_norm_out
        self.conv_out = whole.conv_out
        self.down_blocks, self.mid_block = whole.down_blocks, whole.mid_block
        self.up_blocks = whole.up_blocks
        self.modulations = nn.ModuleDict(
            {
                name: Modulation(block.conv2.out_channels, map_channels)
                for name, block in self._residual_blocks()
            }
        )

    def _residual_blocks(self) -> list[tuple[str, Any]]:
        """Each by a name that says where it is."""
        sides = {"down": self.down_blocks, "mid": [self.mid_block], "up": self.up_blocks}
        return [
            (f"{side}_{level}_{index}", block)
            for side, levels in sides.items()
            for level, part in enumerate(levels)
            for index, block in enumerate(part.resnets)
        ]

    def forward(self, z_t: Tensor, t: Tensor, text: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """The raw output for ``z_t`` (B, 4, h, w); ``t`` (B,) counts from 0, ``text`` (B, L, C).

        ``maps`` go from fine to coarse, one for each level.
        """
        time = self.time_embedding(self.time_proj(t).to(self.conv_in.weight.dtype))
        last = len(self.down_blocks) - 1

        def residual(name: str, part: Any, index: int, h: Tensor, level: int) -> Tensor:
            modulation = self.modulations[f"{name}_{index}"]
            return modulated(part.resnets[index], modulation, h, time, maps[level])

        def attend(part: Any, index: int, h: Tensor) -> Tensor:
            if not getattr(part, "has_cross_attention", False):
                return h
            out: Tensor = part.attentions[index](h, encoder_hidden_states=text, return_dict=False)[
                0
            ]
            return out

        h = self.conv_in(z_t)
        skips = [h]
        for level, part in enumerate(self.down_blocks):
            for index in range(len(part.resnets)):
                h = attend(part, index, residual(f"down_{level}", part, index, h, level))
                skips.append(h)
            for halve in part.downsamplers or ():
                h = halve(h)
                skips.append(h)
        h = residual("mid_0", self.mid_block, 0, h, last)
        h = residual("mid_0", self.mid_block, 1, attend(self.mid_block, 0, h), last)
        for level, part in enumerate(self.up_blocks):
            for index in range(len(part.resnets)):
                h = torch.cat([h, skips.pop()], 1)
                h = attend(part, index, residual(f"up_{level}", part, index, h, last - level))
            for double in part.upsamplers or ():
                h = double(h, skips[-1].shape[-2:])
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(h)))
        return out


class FuseBlock(nn.Module):
    """What a decoder's features lack, from those of the encoder: C of the paper's CFW."""

    def __init__(self, channels: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.first = _residual_block(2 * channels, channels, None, VAE_EPS)
        self.middle = nn.Sequential(*(RRDB(channels, growth) for _ in range(blocks)))
        self.last = _residual_block(channels, channels, None, VAE_EPS)

    def forward(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        """Both are (B, C, H, W); their order in the first convolution is this one."""
        h = self.middle(self.first(torch.cat([encoded, decoded], 1), None))
        out: Tensor = self.last(h, None)
        return out


class WrappedVAE(nn.Module):
    """The VAE of Stable Diffusion with controllable feature wrapping in its decoder.

    Latents are not scaled here. Pictures are (B, 3, H, W) in [-1, 1], sides divisible by 8.
    """

    def __init__(self, config: WrapConfig) -> None:
        super().__init__()
        whole: Any = ldm.make_vae(config.vae)
        self.config = whole.config
        self.encoder, self.decoder = whole.encoder, whole.decoder
        self.quant_conv, self.post_quant_conv = whole.quant_conv, whole.post_quant_conv
        self.fuse = nn.ModuleDict(
            {
                str(level): FuseBlock(config.vae.channels[level], config.blocks, config.growth)
                for level in config.levels
            }
        )

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """The encoder's features by level, before each is halved; coarser levels do not run."""
        found: dict[str, Tensor] = {}
        h = self.encoder.conv_in(image)
        for level, part in enumerate(self.encoder.down_blocks):
            for block in part.resnets:
                h = block(h, None)
            if str(level) in self.fuse:
                found[str(level)] = h
            if len(found) == len(self.fuse):
                break
            for halve in part.downsamplers or ():
                h = halve(h)
        return found

    def decode(
        self, latent: Tensor, features: Mapping[str, Tensor] | None = None, w: float = 0.0
    ) -> Tensor:
        """The picture, not clipped; ``w`` 0 is the plain decoder and reads no ``features``."""
        h = self.decoder.conv_in(self.post_quant_conv(latent))
        h = self.decoder.mid_block(h, None)
        last = len(self.decoder.up_blocks) - 1
        for index, part in enumerate(self.decoder.up_blocks):
            for block in part.resnets:
                h = block(h, None)
            level = str(last - index)
            if w != 0 and features is not None and level in self.fuse:
                h = h + w * self.fuse[level](features[level], h)
            for double in part.upsamplers or ():
                h = double(h)
        out: Tensor = self.decoder.conv_out(F.silu(self.decoder.conv_norm_out(h)))
        return out


def encoder_name(key: str) -> str:
    """The published name of a tensor of ``TimeAwareEncoder``."""
    match = LEAF.fullmatch(key)
    return key if match is None else f"{match[1]}.{ldm.RESNET[match[2]]}.{match[3]}"


def modulated_unet_name(key: str, config: ldm.UNetConfig) -> str:
    """The published name of a tensor of ``ModulatedUNet``."""
    match = re.fullmatch(r"modulations\.(down|mid|up)_(\d+)_(\d+)\.(\w+)\.(\w+)", key)
    if match is None:
        return ldm.unet_name(key, config)
    side, level, index, part, leaf = match.groups()
    where = "mid_block" if side == "mid" else f"{side}_blocks.{level}"
    norm = ldm.unet_name(f"{where}.resnets.{index}.norm1.{leaf}", config)
    block = norm.removesuffix(f"{ldm.RESNET['norm1']}.{leaf}")
    return f"{block}spade.{MODULATION[part]}.{leaf}"


def wrapped_vae_name(key: str, config: WrapConfig) -> str:
    """The published name of a tensor of ``WrappedVAE``."""
    match = re.fullmatch(r"fuse\.(\d+)\.(\w+)\.(.+)", key)
    if match is None:
        return ldm.vae_name(key, config.vae)
    rest = match[3].replace("conv_shortcut", "conv_out").replace("RDB", "rdb")
    return f"decoder.fusion_layer_{match[1]}.{FUSE[match[2]]}.{rest}"
