"""What the loop needs from a network: a Backbone.

A backbone knows how its network was trained (prediction type, residual space, clamps, ranges) and
hands over ẑ_0 in fp32. It knows no sampler, no tile and no file.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from yoda_cli.devices.device import compiled
from yoda_cli.diffusion.schedule import NoiseSchedule, Prediction, predict_z0
from yoda_cli.models.base import Condition
from yoda_cli.tiling.geometry import Geometry


class Backbone(nn.Module, ABC):
    """A diffusion super-resolution network.

    ``prediction`` is what ``denoise`` puts out, ``geometry`` how the network looks from outside.
    ``takes_gains``: it reads what the last step gained, ``Condition.gains``. Above the
    strength ``restores_from`` the unrefined picture is restored, which takes longer.
    """

    geometry: Geometry
    prediction: Prediction
    schedule: NoiseSchedule
    is_compiled: bool = False
    takes_gains: bool = False
    restores_from: float = math.inf

    @property
    def parameter_count(self) -> int:
        """Numbers that were trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def compile_denoise(self, device: torch.device) -> None:
        """Have torch compile the network: its first calls are slow then, the others faster."""
        self.denoise = compiled(self.denoise, device)  # type: ignore[method-assign]
        self.is_compiled = True

    @abstractmethod
    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """From the LR image (B, 3, h, w) in [0, 1]; sides divide by the stride. Once per image.

        ``strength`` in [0, 1], a number or (B,), is the degradation to expect in it; networks
        that were not trained for it ignore it.
        """

    def encode_base(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """As ``encode``, where nothing will be sampled: at least what ``decode`` of z_lr reads."""
        return self.encode(lr, strength)

    def survey(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """As ``encode``, where only ``Condition.attention`` will be read."""
        return self.encode(lr, strength)

    @abstractmethod
    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        """ẑ_0 in fp32 for the state z_t (B, C, H, W) at time t in 1…T.

        ``mask`` (B, 1, H, W) is where the result will be read; networks may use it as an input.
        """

    @abstractmethod
    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        """The image (B, 3, H, W), nominally in [0, 1], not clipped; of latents, z_0 itself."""

    @abstractmethod
    def to_z(self, hr: Tensor, condition: Condition) -> Tensor:
        """The inverse of ``decode``: where an HR image (B, 3, H, W) in [0, 1] lies in z space."""

    @abstractmethod
    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        """The network's raw output for times ``t`` (B,), for training."""


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
