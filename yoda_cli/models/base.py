"""What the loop needs from a network: the Backbone protocol and the Condition it makes of an image.

A backbone knows how its network was trained (prediction type, residual space, clamps, ranges) and
hands over ẑ_0 in fp32. It knows no sampler, no tile and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from yoda_cli.diffusion.schedule import NoiseSchedule, Prediction, predict_z0
from yoda_cli.tiling.windows import Window

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")


@dataclass(frozen=True)
class Condition:
    """What a backbone derives once from the LR image.

    ``z_lr`` (B, C, H, W) is the unrefined picture on the diffusion grid. ``maps`` hold whatever
    else ``predict`` and ``decode`` read, each (B, c, H/f, W/f) with an integer f.
    ``attention`` (B, 1, h, w) in [0, 1] is the learned map on the LR grid, if the network has one.
    """

    z_lr: Tensor
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    attention: Tensor | None = None


def crop_condition(condition: Condition, window: Window) -> Condition:
    """The part of a condition that a window sees; its edges must divide by every map's factor."""
    height = condition.z_lr.shape[-2]

    def cut(x: Tensor) -> Tensor:
        return window.divided(height // x.shape[-2]).cut(x)

    attention = condition.attention
    return Condition(
        cut(condition.z_lr),
        {name: cut(value) for name, value in condition.maps.items()},
        None if attention is None else cut(attention),
    )


def build_config(kind: type[C], values: Mapping[str, Any]) -> C:
    """A configuration record from plain data, as a checkpoint's metadata or a recipe holds it."""
    unknown = set(values) - {f.name for f in fields(kind)}
    if unknown:
        raise ValueError(f"unknown settings for {kind.__name__}: {', '.join(sorted(unknown))}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


class Backbone(Protocol):
    """A diffusion super-resolution network. Implementations are ``nn.Module`` as well.

    ``scale`` is the native factor. ``stride``: the LR image's sides must be multiples of it.
    ``halo`` is how far, in output pixels, one call looks beyond a pixel (for tiles), and
    ``plan_halo`` how far where tiles move from step to step, so that what is cut off does not add
    up. ``pixel_bytes`` is about what one call holds per output pixel.
    ``in_channels`` are those of what is enlarged, 3 but for latents. ``variant`` tells apart the
    ways to run one network that cost differently.
    ``z_channels`` is the C of the diffusion space; ``prediction`` is what ``denoise`` puts out.
    """

    scale: int
    stride: int
    halo: int
    plan_halo: int
    pixel_bytes: int
    in_channels: int
    variant: str
    z_channels: int
    prediction: Prediction
    schedule: NoiseSchedule

    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """From the LR image (B, 3, h, w) in [0, 1]; sides divide by ``stride``. Once per image.

        ``strength`` in [0, 1], a number or (B,), is the degradation to expect in it; networks
        that were not trained for it ignore it.
        """
        ...

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        """ẑ_0 in fp32 for the state z_t (B, C, H, W) at time t in 1…T.

        ``mask`` (B, 1, H, W) is where the result will be read; networks may use it as an input.
        """
        ...

    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        """The image (B, 3, H, W), nominally in [0, 1], not clipped."""
        ...

    def to_z(self, hr: Tensor, condition: Condition) -> Tensor:
        """The inverse of ``decode``: where an HR image (B, 3, H, W) in [0, 1] lies in z space."""
        ...

    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        """The network's raw output for times ``t`` (B,), for training."""
        ...


def predict_clipped(
    net: Backbone, z_t: Tensor, t: int, condition: Condition, mask: Tensor, clip: float
) -> Tensor:
    """ẑ_0 in fp32 from what ``net.denoise`` puts out, clamped to ± ``clip`` unless that is 0."""
    times = torch.full((z_t.shape[0],), t, device=z_t.device)
    output = net.denoise(z_t, times, condition, mask).float()
    signal, sigma = net.schedule.signal(t), net.schedule.sigma(t)
    return clip_to(predict_z0(net.prediction, output, z_t, signal, sigma), clip)


def clip_to(z: Tensor, clip: float) -> Tensor:
    """``z`` clamped to ± ``clip``; 0 leaves it."""
    return z.clamp(-clip, clip) if clip > 0 else z
