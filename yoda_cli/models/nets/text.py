"""The text tower of Stable Diffusion 2, built from open_clip's, under its published names.

Prompts become the (B, 77, width) states before the last block, through the final norm: what
cross-attention reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yoda_cli.errors import need

HEAD_WIDTH = 64  # of OpenCLIP ViT-H; cannot be told from the tensors
LENGTH = 77

#: In the published file, but of no use here.
UNUSED = ("text_projection", "logit_scale")


@dataclass(frozen=True)
class TextConfig:
    """The shape of an OpenCLIP text tower."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    length: int = LENGTH


def infer_text(state: Mapping[str, Any], heads: int | None = None) -> TextConfig:
    """From OpenCLIP names."""
    vocabulary, width = state["token_embedding.weight"].shape
    layers = {m[1] for key in state if (m := re.match(r"transformer\.resblocks\.(\d+)\.", key))}
    length = int(state["positional_embedding"].shape[0])
    return TextConfig(
        int(vocabulary), int(width), len(layers), heads or int(width) // HEAD_WIDTH, length
    )


class TextTower(nn.Module):
    """Token and position embeddings, a causal transformer without its last block, a norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        need("open_clip", "diffbir")
        from open_clip.transformer import Transformer

        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.length, config.width))
        self.transformer = Transformer(config.width, config.layers, config.heads)
        self.ln_final = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """States (B, length, width) of ``tokens`` (B, length)."""
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        causal = torch.full((length, length), float("-inf"), device=x.device, dtype=x.dtype)
        causal = causal.triu(1)
        for block in self.transformer.resblocks[:-1]:
            x = block(x, attn_mask=causal)
        out: Tensor = self.ln_final(x)
        return out


def tokenize(prompts: Sequence[str], length: int = LENGTH) -> Tensor:
    """OpenCLIP's byte pairs (B, length): start, tokens, end, zeros; cut where it is too long."""
    need("open_clip", "diffbir")
    from open_clip.tokenizer import SimpleTokenizer

    tokens: Tensor = SimpleTokenizer(context_length=length)(list(prompts))
    return tokens
