"""Networks of SeeSR (arXiv:2311.16518) and AddSR (arXiv:2404.01717), under their published names.

U-Net and ControlNet are those of Stable Diffusion 2 with a second transformer behind every text
transformer, which reads image tokens instead of text. The tokens come from DAPE: RAM's Swin-L
with a low-rank update (LoRA) for degraded pictures. DAPE's tagger names what it sees.
Blocks are diffusers' and timm's; only the names are turned into the published ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.errors import need

HEAD_DIM = 64  # of Stable Diffusion 2; cannot be told from the tensors
GROUPS = 32  # of its group norms; neither
TOKENS = "image_tokens"  # how they reach the transformers through diffusers' blocks
LORA_ALPHA = 1.0
BERT_EPS = 1e-12
#: Of RAM's file, what makes tokens.
DAPE_PARTS = ("visual_encoder.", "image_proj.")
#: In RAM's file, but made by the network itself.
DERIVED = ("relative_position_index", "attn_mask")


@dataclass(frozen=True)
class SeeSRConfig:
    """The shape of a U-Net, or of a ControlNet that copies its first half and has a ``stem``.

    ``heads`` is the number of attention heads at each level. ``stem`` holds the widths of the
    layers that bring the ControlNet's picture down to the latent grid.
    """

    in_channels: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    context: int
    image_context: int
    heads: tuple[int, ...]
    groups: int = GROUPS
    stem: tuple[int, ...] = ()


def infer_seesr(
    state: Mapping[str, Any], head_dim: int = HEAD_DIM, heads: tuple[int, ...] = (),
    groups: int = GROUPS,
) -> SeeSRConfig:  # fmt: skip
    """From diffusers' names; works for a U-Net and for a ControlNet.

    Every head has ``head_dim`` channels unless the ``heads`` of each level are given.
    """
    found = (re.match(r"down_blocks\.(\d+)\.resnets\.(\d+)\.", key) for key in state)
    places = {(int(m[1]), int(m[2])) for m in found if m}
    levels = range(1 + max(level for level, _ in places))
    channels = tuple(
        int(state[f"down_blocks.{level}.resnets.0.conv1.weight"].shape[0]) for level in levels
    )
    stem: tuple[int, ...] = ()
    if "controlnet_cond_embedding.conv_in.weight" in state:
        wider = [f"controlnet_cond_embedding.blocks.{i}.weight" for i in range(1, len(state), 2)]
        names = ["controlnet_cond_embedding.conv_in.weight", *(n for n in wider if n in state)]
        stem = tuple(int(state[name].shape[0]) for name in names)
    middle = "mid_block.{}.0.transformer_blocks.0.attn2.to_k.weight"
    return SeeSRConfig(
        int(state["conv_in.weight"].shape[1]),
        channels,
        1 + max(block for _, block in places),
        tuple(f"down_blocks.{level}.attentions.0.norm.weight" in state for level in levels),
        int(state[middle.format("attentions")].shape[1]),
        int(state[middle.format("image_attentions")].shape[1]),
        heads or tuple(width // head_dim for width in channels),
        groups,
        stem,
    )


class TextThenImage(nn.Module):
    """A text transformer and the image transformer behind it, in the place of the first."""

    def __init__(self, text: nn.Module, image: nn.Module) -> None:
        super().__init__()
        self.text, self.image = text, image

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        cross_attention_kwargs: dict[str, Any],
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """As diffusers' blocks call a transformer; the image tokens are in the keywords."""
        if attention_mask is not None or encoder_attention_mask is not None or return_dict:
            raise ValueError("masks of tokens and dictionaries are not supported here")
        h = self.text(
            hidden_states, encoder_hidden_states=encoder_hidden_states, return_dict=False
        )[0]
        tokens = cross_attention_kwargs[TOKENS]
        return (self.image(h, encoder_hidden_states=tokens, return_dict=False)[0],)


def make_unet(config: SeeSRConfig) -> nn.Module:
    """diffusers' U-Net with image transformers; 4 output channels.

    ``net(z_t, t, text, cross_attention_kwargs={TOKENS: tokens})``; ``t`` (B,) counts from 0.
    """
    need("diffusers", "diffbir")
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    up = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(config.attention)]
    net: nn.Module = UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=4,
        block_out_channels=config.channels,
        layers_per_block=config.blocks,
        down_block_types=_down_types(config),
        up_block_types=tuple(up),
        cross_attention_dim=config.context,
        # The argument's name is a mistake that diffusers keeps: it is the number of heads.
        attention_head_dim=config.heads,
        norm_num_groups=config.groups,
        use_linear_projection=True,
    )
    return _with_image_transformers(net, config)


def make_control(config: SeeSRConfig) -> nn.Module:
    """diffusers' ControlNet with image transformers; its picture is RGB in [0, 1].

    ``net(z_t, t, text, picture, cross_attention_kwargs={TOKENS: tokens}, return_dict=False)`` is
    the controls, fine to coarse, and that of the middle.
    """
    need("diffusers", "diffbir")
    from diffusers.models.controlnets.controlnet import ControlNetModel

    net: nn.Module = ControlNetModel(
        in_channels=config.in_channels,
        block_out_channels=config.channels,
        layers_per_block=config.blocks,
        down_block_types=_down_types(config),
        cross_attention_dim=config.context,
        attention_head_dim=config.heads,
        norm_num_groups=config.groups,
        use_linear_projection=True,
        conditioning_embedding_out_channels=config.stem,
    )
    return _with_image_transformers(net, config)


def _down_types(config: SeeSRConfig) -> tuple[str, ...]:
    return tuple("CrossAttnDownBlock2D" if has else "DownBlock2D" for has in config.attention)


def _with_image_transformers(net: Any, config: SeeSRConfig) -> nn.Module:
    """``net`` with an image transformer behind each of its text transformers."""
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    for block in (*net.down_blocks, net.mid_block, *getattr(net, "up_blocks", ())):
        for index, text in enumerate(getattr(block, "attentions", ())):
            width, heads = text.in_channels, text.num_attention_heads
            image = Transformer2DModel(
                heads,
                width // heads,
                width,
                cross_attention_dim=config.image_context,
                norm_num_groups=config.groups,
                use_linear_projection=True,
            )
            block.attentions[index] = TextThenImage(text, image)
    whole: nn.Module = net
    return whole


def seesr_name(key: str) -> str:
    """The published name of a tensor of ``make_unet``'s or ``make_control``'s."""
    key = re.sub(r"\battentions\.(\d+)\.image\.", r"image_attentions.\1.", key)
    return re.sub(r"\battentions\.(\d+)\.text\.", r"attentions.\1.", key)


@dataclass(frozen=True)
class DAPEConfig:
    """The shape of a Swin transformer and of the projection of its tokens."""

    size: int
    patch: int
    window: int
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    tokens: int


def infer_dape(state: Mapping[str, Any]) -> DAPEConfig:
    """From RAM's names. The picture's side is that whose last level is one window."""
    found = (re.match(r"visual_encoder\.layers\.(\d+)\.blocks\.(\d+)\.", key) for key in state)
    places = [(int(m[1]), int(m[2])) for m in found if m]
    levels = range(1 + max(level for level, _ in places))
    tables = [
        state[f"visual_encoder.layers.{i}.blocks.0.attn.relative_position_bias_table"].shape
        for i in levels
    ]
    width, _, patch, _ = state["visual_encoder.patch_embed.proj.weight"].shape
    window = (round(tables[0][0] ** 0.5) + 1) // 2
    return DAPEConfig(
        size=patch * window << (len(levels) - 1),
        patch=int(patch),
        window=window,
        width=int(width),
        depths=tuple(1 + max(b for level, b in places if level == i) for i in levels),
        heads=tuple(int(table[1]) for table in tables),
        tokens=int(state["image_proj.weight"].shape[0]),
    )


class DAPE(nn.Module):
    """A picture (B, 3, size, size), normalised as for ImageNet, to image tokens.

    The first token is the mean of the others, of which there is one for every square of the last
    level: (B, 1 + N, tokens).
    """

    def __init__(self, config: DAPEConfig) -> None:
        super().__init__()
        from timm.models.swin_transformer import SwinTransformer

        self.config = config
        self.visual_encoder = SwinTransformer(
            img_size=config.size,
            patch_size=config.patch,
            num_classes=0,
            embed_dim=config.width,
            depths=config.depths,
            num_heads=config.heads,
            window_size=config.window,
        )
        wide = config.width << (len(config.depths) - 1)
        self.image_proj = nn.Linear(wide, config.tokens)

    def features(self, image: Tensor) -> Tensor:
        """The Swin transformer's own tokens, their mean in front."""
        tokens = self.visual_encoder.forward_features(image).flatten(1, 2)
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1)

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.image_proj(self.features(image))
        return tokens

    def make_derived(self) -> None:
        """Fill what no file holds: a network that was made on the meta device has it empty."""
        from timm.models.swin_transformer import SwinTransformerBlock, get_relative_position_index

        like = self.image_proj.weight
        for block in self.modules():
            if isinstance(block, SwinTransformerBlock):
                index = get_relative_position_index(*block.window_size).to(like.device)
                block.attn.register_buffer("relative_position_index", index, persistent=False)
                with torch.device("cpu"):
                    mask = block.get_attn_mask()
                mask = None if mask is None else mask.to(like)
                block.register_buffer("attn_mask", mask, persistent=False)


def dape_name(key: str) -> str:
    """RAM's name of a tensor of ``DAPE``: timm counts a level's downsampling to the next one."""
    return re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)


def merge_lora(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with its ``lora_A`` and ``lora_B`` added to the weights beside them.

    In a fused ``qkv`` the first half of the rows is for q, the second for v, and k stays. The
    update is alpha/rank · B A, in fp32.
    """
    merged = {key: value for key, value in state.items() if not key.endswith(("lora_A", "lora_B"))}
    for key, down in state.items():
        if not key.endswith(".lora_A"):
            continue
        place = key.removesuffix(".lora_A")
        up, weight = state[f"{place}.lora_B"].float(), merged[f"{place}.weight"].float()
        rank = up.shape[1]
        updates = [
            LORA_ALPHA / rank * rows @ columns
            for rows, columns in zip(
                up.chunk(len(down) // rank), down.float().chunk(len(down) // rank), strict=True
            )
        ]
        if len(updates) == 2:
            updates = [updates[0], torch.zeros_like(updates[0]), updates[1]]
        merged[f"{place}.weight"] = weight + torch.cat(updates)
    return merged


@dataclass(frozen=True)
class TaggerConfig:
    """The shape of RAM's tagging head; its number of heads cannot be told from the tensors."""

    classes: int
    tokens: int
    width: int
    wide: int
    layers: int
    heads: int = 4


def infer_tagger(state: Mapping[str, Any], heads: int = 4) -> TaggerConfig:
    """From RAM's names."""
    classes, tokens = state["label_embed"].shape
    wide, width = state["tagging_head.encoder.layer.0.intermediate.dense.weight"].shape
    found = (re.match(r"tagging_head\.encoder\.layer\.(\d+)\.", key) for key in state)
    layers = len({m[1] for m in found if m})
    return TaggerConfig(int(classes), int(tokens), int(width), int(wide), layers, heads)


class TagLayer(nn.Module):
    """A block of BERT that attends to image tokens only, norms behind the sums."""

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(config.tokens, width)
        self.value = nn.Linear(config.tokens, width)
        self.attended = nn.Linear(width, width)
        self.attended_norm = nn.LayerNorm(width, BERT_EPS)
        self.up = nn.Linear(width, config.wide)
        self.down = nn.Linear(config.wide, width)
        self.down_norm = nn.LayerNorm(width, BERT_EPS)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        parts = (self.query(x), self.key(tokens), self.value(tokens))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.attended_norm(self.attended(seen) + x)
        out: Tensor = self.down_norm(self.down(F.gelu(self.up(x))) + x)
        return out


class Tagger(nn.Module):
    """DAPE's tokens (B, N, tokens) to a logit for every tag (B, classes)."""

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.label_embed = nn.Parameter(torch.empty(config.classes, config.tokens))
        self.wordvec_proj = nn.Linear(config.tokens, config.width)
        self.layers = nn.ModuleList(TagLayer(config) for _ in range(config.layers))
        self.fc = nn.Linear(config.width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.relu(self.wordvec_proj(self.label_embed))
        x = x.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            x = layer(x, tokens)
        logits: Tensor = self.fc(x)[..., 0]
        return logits


TAG_LAYER = {
    "query": "crossattention.self.query",
    "key": "crossattention.self.key",
    "value": "crossattention.self.value",
    "attended": "crossattention.output.dense",
    "attended_norm": "crossattention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "down_norm": "output.LayerNorm",
}


def tagger_name(key: str) -> str:
    """RAM's name of a tensor of ``Tagger``."""
    if (match := re.fullmatch(r"layers\.(\d+)\.(\w+)\.(\w+)", key)) is None:
        return key
    return f"tagging_head.encoder.layer.{match[1]}.{TAG_LAYER[match[2]]}.{match[3]}"
