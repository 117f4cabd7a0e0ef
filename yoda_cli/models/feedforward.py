"""Networks without diffusion (Real-ESRGAN, SwinIR, a denoiser…) behind the contract of ours.

One call makes the picture. That is a chain of a single transition, T = 1, whose ẑ_0 is the result
and whose unrefined picture is the bicubic enlargement. So tiles, blocks, memory, progress and
``fidelity`` are those of every other model. z is the picture itself, (B, 3, H, W) in [0, 1].
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from yoda_cli.config import SampleDefaults, UpscaleOptions
from yoda_cli.devices.device import pick_device, pick_precision
from yoda_cli.diffusion.schedule import Prediction, schedule_from_betas
from yoda_cli.errors import UsageError
from yoda_cli.images.resize import imresize
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.base import Condition
from yoda_cli.models.image_networks import Network, image_network
from yoda_cli.models.network_facts import Facts, facts_of
from yoda_cli.tiling.geometry import Geometry

log = logging.getLogger(__name__)

FEEDFORWARD = "feedforward"  # what weights.toml calls them
ONE_CALL = SampleDefaults(attention="uniform", lower_bound=1.0, steps=1)
PROMISED = 55.0  # dB between any picture in half precision and fp32
#: What that takes on the strip: photographs came out up to 2.2 dB farther apart than the strip.
LEAST_DECIBELS = PROMISED + 3.0


class FeedForward(Backbone):
    """A network that makes its picture in one call."""

    prediction: Prediction = "x0"

    def __init__(self, network: Network, facts: Facts) -> None:
        super().__init__()
        self.network = network
        self.net: nn.Module = network.model  # so that it moves with this module
        scale = int(network.scale)
        halo = facts.halo * scale
        self.geometry = Geometry(scale, facts.stride, halo, halo, facts.pixel_bytes)
        self.schedule = schedule_from_betas(torch.tensor([0.5], dtype=torch.float64))

    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        scale = self.geometry.scale
        enlarged = imresize(lr, scale=scale).clamp(0, 1) if scale > 1 else lr
        return Condition(enlarged, {"lr": lr})

    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        # One by one: not every network of spandrel's takes several pictures together.
        return torch.cat([self.network(lr) for lr in torch.split(condition.maps["lr"], 1)])

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        times = torch.full((z_t.shape[0],), t, device=z_t.device)
        return self.denoise(z_t, times, condition, mask).float()

    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        return z_0

    def to_z(self, hr: Tensor, condition: Condition) -> Tensor:
        return hr


@dataclass(frozen=True)
class Loaded:
    """A network, and the precision in which it is to be run."""

    backbone: FeedForward
    precision: torch.dtype


def load_feedforward(state: Mapping[str, Tensor], path: Path, options: UpscaleOptions) -> Loaded:
    """The network in a file, its reach and memory measured on this machine once.

    ``precision="auto"`` falls back to fp32 where half precision departs too far from it.
    """
    network = image_network(state, str(path))
    if network.purpose == "FaceSR":
        raise UsageError(
            f"{path} restores one aligned face ({network.architecture.name}), not whole pictures"
        )
    device = pick_device(options.device)
    precision = pick_precision("fp32" if options.exact else options.precision, device)
    network.to(device)
    facts = facts_of(network, path, device, precision)
    if options.precision == "auto" and facts.decibels < LEAST_DECIBELS:
        log.info("%s: %.1f dB in %s; run in fp32", path, facts.decibels, precision)
        precision = torch.float32
    return Loaded(FeedForward(network, facts), precision)
