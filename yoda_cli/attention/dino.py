"""DINO's vision transformers as attention: where the class token of the last layer looks.

Parts and key names are timm's, which are the reference's. Two things are done here as the reference
does them and timm does not: the position embedding is resampled with the scale factor
(n + 0.1) / √N, which also drives its sampling grid, and the attention weights are handed out.
Source: Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.attention.heads import imagenet_normalised, min_max
from yoda_cli.errors import WeightsError
from yoda_cli.tiling.overlap import blend, sliding_windows
from yoda_cli.tiling.windows import Window
from yoda_cli.weights.tensors import read_tensors

# A forward pass takes about heads × tokens² × 4 bytes for one layer's weights: 6 heads and 3,200
# tokens are 250 MB, and as much again for their softmax. Larger pictures are seen in windows.
MAX_TOKENS = 3200
WINDOW_TOKENS = 28  # DINO was trained on 28 × 28 tokens at most (224 pixels, patch 8)
STEP_TOKENS = 21  # from window to window: a quarter of each is shared


class DinoAttention(nn.Module):
    """A vision transformer of DINO whose last layer's attention can be read."""

    def __init__(
        self, *, patch: int, dim: int = 384, depth: int = 12, heads: int = 6, size: int = 224
    ) -> None:
        super().__init__()
        self.net = timm.models.vision_transformer.VisionTransformer(
            img_size=size, patch_size=patch, embed_dim=dim, depth=depth, num_heads=heads,
            num_classes=0, qkv_bias=True, dynamic_img_size=True,
        )  # fmt: skip
        self.patch, self.heads = patch, heads

    def position_embedding(self, rows: int, columns: int) -> Tensor:
        """(1, 1 + rows·columns, dim): the learned grid, resampled unless it is that very grid."""
        learned = cast(Tensor, self.net.pos_embed)
        count = learned.shape[1] - 1
        if rows * columns == count and rows == columns:
            return learned
        side = math.isqrt(count)
        grid = learned[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factors = ((rows + 0.1) / math.sqrt(count), (columns + 0.1) / math.sqrt(count))
        resampled = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        assert resampled.shape[-2:] == (rows, columns)
        return torch.cat([learned[:, :1], resampled.permute(0, 2, 3, 1).flatten(1, 2)], 1)

    def tokens(self, x: Tensor) -> Tensor:
        """(B, 1 + N, dim) of a normalised picture whose sides divide by the patch."""
        rows, columns = (n // self.patch for n in x.shape[-2:])
        patches = self.net.patch_embed.proj(x).flatten(2).transpose(1, 2)
        first = cast(Tensor, self.net.cls_token).expand(len(x), -1, -1)
        return torch.cat([first, patches], 1) + self.position_embedding(rows, columns)

    def last_attention(self, tokens: Tensor, *, whole: bool = False) -> Tensor:
        """The last layer's weights: (B, heads, 1, 1 + N) of the class token, or all rows.

        Rows are softmaxed over all tokens and not renormalised afterwards.
        """
        blocks = cast(Any, self.net.blocks)
        for block in blocks[:-1]:
            tokens = block(tokens)
        normed = blocks[-1].norm1(tokens)
        batch, count, dim = normed.shape
        qkv = blocks[-1].attn.qkv(normed).view(batch, count, 3, self.heads, dim // self.heads)
        query, key, _ = qkv.permute(2, 0, 3, 1, 4)
        query = query if whole else query[:, :, :1]
        weights: Tensor = query @ key.transpose(-2, -1) * (dim // self.heads) ** -0.5
        return weights.softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, heads, H/p, W/p): the class token's attention to each patch of a normalised ``x``."""
        rows, columns = (n // self.patch for n in x.shape[-2:])
        weights = self.last_attention(self.tokens(x))[:, :, 0, 1:]
        return weights.view(len(x), self.heads, rows, columns)


def load(path: Path, *, patch: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The head maps of a published ViT-S file: LR image → (1, 6, h, w), each in [0, 1]."""
    with torch.device("meta"):
        net = DinoAttention(patch=patch)
    fill(net, read_tensors(path), path)
    net.to(device).eval()
    return lambda lr: head_maps(net, lr.to(device)).cpu()


def fill(net: DinoAttention, state: Mapping[str, Tensor], path: Path) -> None:
    """Load reference or timm keys; all must be there, fit, and be known."""
    try:
        net.net.load_state_dict({k: v.float() for k, v in state.items()}, assign=True)
    except RuntimeError as error:
        what = " ".join(str(error).split())[:160]
        raise WeightsError(f"{path} is no DINO ViT with patch {net.patch}: {what}") from error
    net.requires_grad_(requires_grad=False)


@torch.inference_mode()
def head_maps(net: DinoAttention, lr: Tensor) -> Tensor:
    """(1, heads, h, w) of an LR image (1, 3, h, w) in [0, 1]; each head min–max normalised.

    The border is repeated up to whole patches and the map cut back. Above ``MAX_TOKENS`` patches
    the picture is seen in overlapping windows of the size DINO was trained at, whose weights are
    blended before they are normalised; memory is then that of one window and of the maps.
    """
    height, width = lr.shape[-2:]
    rows, columns = -(-height // net.patch), -(-width // net.patch)
    pad = (0, columns * net.patch - width, 0, rows * net.patch - height)
    x = imagenet_normalised(F.pad(lr, pad, mode="replicate"))
    raw = windowed(net, x) if is_windowed(height, width, net.patch) else net(x)
    fine = F.interpolate(raw, scale_factor=net.patch, mode="bilinear")[..., :height, :width]
    return min_max(fine)


def is_windowed(height: int, width: int, patch: int) -> bool:
    """Whether a picture is too large to be seen at once."""
    return -(-height // patch) * -(-width // patch) > MAX_TOKENS


def windowed(net: DinoAttention, x: Tensor) -> Tensor:
    """Head weights of a large picture on its patch grid, from overlapping windows.

    A window's weights sum to at most 1 over its own patches, so windows of one size compare.
    """
    rows, columns = (n // net.patch for n in x.shape[-2:])
    windows = sliding_windows(rows, columns, WINDOW_TOKENS, STEP_TOKENS)

    def see(window: Window) -> Tensor:
        return cast(Tensor, net(window.multiplied(net.patch).cut(x)))

    return blend(see, windows, x.new_zeros(1, net.heads, rows, columns))
