"""Our compact networks run by onnxruntime, without torch: what ``loading`` is to all others.

An ``OnnxNetwork`` does what a ``Backbone`` does, with NumPy's arrays, in fp32 on the CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from yoda_cli.arrays import add_scaled, as_array, blank
from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.device import PlainCpu
from yoda_cli.devices.graphs import Graph, graph_file
from yoda_cli.diffusion.schedule import NoiseSchedule
from yoda_cli.errors import UsageError
from yoda_cli.files.looking import is_file
from yoda_cli.models.base import Condition
from yoda_cli.models.checkpoint import defaults_of, read_header
from yoda_cli.models.model import Model
from yoda_cli.tiling.geometry import Geometry
from yoda_cli.weights import load_registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from yoda_cli.models.backbone import Backbone


CLEAN_ENCODER = "clean-encoder"


class OnnxNetwork:
    """The graphs of a checkpoint, whose path is given without its suffix."""

    is_compiled = takes_gains = False

    def __init__(self, weights: Path) -> None:
        self.weights, self.denoiser = weights, Graph.of(weights, "denoiser")
        facts = self.denoiser.facts
        self.geometry = Geometry(**facts["geometry"])
        self.residual = float(facts["residual"])
        alpha_bar = np.array(facts["alpha_bar"])
        beta = np.concatenate([[0.0], 1 - alpha_bar[1:] / alpha_bar[:-1]])
        self.schedule = NoiseSchedule(cast("Tensor", beta), cast("Tensor", alpha_bar))
        self.parameter_count = self.denoiser.values

    def encoder(self, damaged: bool) -> Graph:
        """Of all pictures, or the smaller one of clean pictures where there is one."""
        lean = not damaged and is_file(graph_file(self.weights, CLEAN_ENCODER))
        return Graph.of(self.weights, CLEAN_ENCODER if lean else "encoder")

    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """As ``Backbone.encode``."""
        strengths = np.broadcast_to(np.asarray(strength, np.float32), lr.shape[:1])
        encoder = self.encoder(damaged=bool((strengths > 0).any()))
        features, base, attention = encoder.run({"lr": as_array(lr), "strength": strengths})
        size = [n * self.geometry.scale for n in lr.shape[-2:]]
        maps = {"features": cast("Tensor", features), "base": cast("Tensor", base)}
        z_lr = blank(maps["base"], lr.shape[0], self.geometry.z_channels, *size)
        return Condition(z_lr, maps, cast("Tensor", attention))

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        """As ``Backbone.predict``."""
        inputs = {name: as_array(value) for name, value in condition.maps.items()} | {
            "z_t": as_array(z_t),
            "t": np.full(z_t.shape[0], t, np.int64),
            "mask": as_array(mask).astype(np.float32),
        }
        wanted = {name: value for name, value in inputs.items() if name in self.denoiser.inputs}
        return cast("Tensor", self.denoiser.run(wanted)[0])

    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        """As ``Backbone.decode``."""
        return add_scaled(condition.maps["base"] * 1, z_0, self.residual)


def has_graphs(options: UpscaleOptions) -> bool:
    """Whether the model that ``options`` name is a packaged one that comes with graphs."""
    try:
        entry = load_registry().model(options.model)
    except UsageError:  # a file, or a name that nothing has
        return False
    if not entry.bundled:
        return False
    weights = entry.path.with_suffix("")
    return all(is_file(graph_file(weights, part)) for part in ("encoder", "denoiser"))


def load_plain(options: UpscaleOptions) -> Model:
    """The packaged model that ``options`` name, to be run by onnxruntime.

    WeightsError where that is not installed.
    """
    path = load_registry().model(options.model).path
    network = cast("Backbone", OnnxNetwork(path.with_suffix("")))
    header = read_header(path)
    device = cast("torch.device", PlainCpu())
    precision = cast("torch.dtype", np.dtype(np.float32))
    return Model(options.model, network, defaults_of(header, path), device, precision, header.card)
