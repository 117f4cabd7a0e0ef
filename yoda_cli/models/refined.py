"""Somebody else's network with our diffusion on top: the base stays theirs, detail is ours.

Their picture, expressed as a residual against our regression base, is z_lr. Outside the mask it
waits, noised; a pixel that enters at time t begins there, so of what they drew the more is kept the
later it enters, and the denoiser sees states of the kind that it was trained on. Our detail added
to their picture was farther from the truth than their picture alone: what is sharp gets it twice.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from yoda_cli.images.resize import imresize
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.base import Condition
from yoda_cli.models.feedforward import FeedForward
from yoda_cli.models.srdiff import SRDiff


class Refined(Backbone):
    """``theirs`` makes the unrefined picture, ``ours``, a compact network, refines it.

    A picture of another factor is resized to ours. ``in_fp32``: theirs does not bear the precision
    of ours.
    """

    def __init__(self, theirs: FeedForward, ours: SRDiff, *, in_fp32: bool) -> None:
        super().__init__()
        self.theirs, self.ours, self.in_fp32 = theirs, ours, in_fp32
        self.prediction, self.schedule = ours.prediction, ours.schedule
        self.is_compiled = ours.is_compiled
        one, other = ours.geometry, theirs.geometry
        self.geometry = replace(
            one,
            stride=math.lcm(one.stride, other.stride),
            base_halo=other.halo // other.scale * one.scale,
            pixel_bytes=max(one.pixel_bytes, other.pixel_bytes),
        )

    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        # Theirs takes the base's place, so ours need not restore it.
        condition = self.ours.encode_compact(lr, strength, restored=False)
        with torch.autocast(lr.device.type, enabled=False) if self.in_fp32 else nullcontext():
            seen = self.theirs.encode(lr)
            mask = torch.ones_like(seen.z_lr[:, :1], dtype=torch.bool)
            picture = self.theirs.predict(seen.z_lr, 1, seen, mask)
        height, width = (n * self.geometry.scale for n in lr.shape[-2:])
        if tuple(picture.shape[-2:]) != (height, width):
            picture = imresize(picture, (height, width))
        return replace(condition, z_lr=self.ours.to_z(picture.clamp(0, 1), condition))

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        return self.ours.predict(z_t, t, condition, mask)

    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        return self.ours.denoise(z_t, t, condition, mask)

    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        return self.ours.decode(z_0, condition)

    def to_z(self, hr: Tensor, condition: Condition) -> Tensor:
        return self.ours.to_z(hr, condition)
