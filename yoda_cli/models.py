"""From a model's name to a network ready to run on a device, in a precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from yoda_cli.backbones import Backbone
from yoda_cli.checkpoint import load_checkpoint
from yoda_cli.config import SampleDefaults, UpscaleOptions
from yoda_cli.devices import autocast, pick_device, pick_precision
from yoda_cli.reference import load_reference
from yoda_cli.weights import find_entry


@dataclass(frozen=True)
class Model:
    """A network ready to run, and how it likes to be sampled."""

    name: str
    backbone: Backbone
    defaults: SampleDefaults
    device: torch.device
    precision: torch.dtype

    def context(self) -> AbstractContextManager[Any]:
        """What network calls run under."""
        return autocast(self.device, self.precision)()


#: Published networks were trained without masks: diffuse everywhere, along the whole chain.
PUBLISHED = SampleDefaults(attention="uniform", lower_bound=1.0, steps=1 << 30, sampler="ddpm")
PICKLES = (".pth", ".pt", ".ckpt")


def find_model(options: UpscaleOptions) -> Model:
    """The model ``options`` name: one of the registry, or a checkpoint file."""
    path = Path(options.model)
    if path.suffix == ".safetensors":
        return load_model(path, path.stem, options)
    if path.suffix in PICKLES:
        return place(load_reference(path), path.stem, PUBLISHED, options)
    return load_model(find_entry(options.model).path, options.model, options)


def load_model(path: Path, name: str, options: UpscaleOptions) -> Model:
    """The network in one of our checkpoint files, on the device and in the precision asked for."""
    pick_device(options.device)  # refuse a device that is not there before reading
    backbone, header = load_checkpoint(path)
    return place(backbone, name, SampleDefaults(**header.card.get("defaults", {})), options)


def place(
    backbone: Backbone, name: str, defaults: SampleDefaults, options: UpscaleOptions
) -> Model:
    """A network on its device, channels last, its weights in the precision they are used in."""
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    module = cast(nn.Module, backbone)
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in module.parameters():  # buffers stay fp32
        parameter.data = parameter.data.to(precision)
    return Model(name, backbone, defaults, device, precision)
