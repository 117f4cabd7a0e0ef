"""Our compact networks run by ncnn, without torch: what ``loading`` is to all others.

An ``NcnnNetwork`` does what a ``Backbone`` does, with NumPy's arrays, in fp32 on the CPU.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from yoda_cli.arrays import Array, add_scaled, as_array, blank, joined
from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.device import PlainCpu
from yoda_cli.devices.graphs import Graph, graph_file, read_graphs
from yoda_cli.diffusion.schedule import NoiseSchedule
from yoda_cli.errors import UsageError
from yoda_cli.files.paths import is_file
from yoda_cli.images.local_mean import local_mean
from yoda_cli.images.resize import imresize
from yoda_cli.models.base import Condition
from yoda_cli.models.checkpoint import defaults_of, read_header
from yoda_cli.models.model import Model
from yoda_cli.models.restoring import FROM, share_of, with_restored
from yoda_cli.tiling.geometry import Geometry
from yoda_cli.weights import load_registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from yoda_cli.models.backbone import Backbone

RESTORER = "restorer"  # the graph of what restores damaged pictures


class NcnnNetwork:
    """The graphs of a checkpoint, whose path is given without its suffix."""

    is_compiled = takes_gains = False

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        layouts, self.facts = read_graphs(weights)
        self.geometry = Geometry(**self.facts["geometry"])
        self.residual = float(self.facts["residual"])
        alpha_bar = np.array(self.facts["alpha_bar"])
        beta = np.concatenate([[0.0], 1 - alpha_bar[1:] / alpha_bar[:-1]])
        self.schedule = NoiseSchedule(cast("Tensor", beta), cast("Tensor", alpha_bar))
        self.restores_from = FROM if RESTORER in layouts else math.inf
        self.parameter_count = self.graph("encoder").values + self.graph("denoiser").values

    def graph(self, part: str) -> Graph:
        """A part of the network."""
        return Graph.of(self.weights, part)

    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """As ``Backbone.encode``."""
        return self._encode(lr, strength, ("base", "features", "difficulty"))

    def survey(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """As ``Backbone.survey``."""
        return self._encode(lr, strength, ("base", "difficulty"), survey=True)

    def encode_base(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """As ``Backbone.encode_base``: a tenth of the work is left out."""
        return self._encode(lr, strength, ("base",))

    def _encode(
        self,
        lr: Tensor,
        strength: float | Tensor,
        wanted: tuple[str, ...],
        *,
        survey: bool = False,
    ) -> Condition:
        strengths = np.broadcast_to(np.asarray(strength, np.float32), lr.shape[:1])
        restored = not survey and bool((strengths > self.restores_from).any())
        rows = [
            self._outputs(lr[i : i + 1], strengths[i : i + 1], wanted, restored)
            for i in range(len(lr))
        ]
        made = {name: joined([row[name] for row in rows]) for name in rows[0]}
        size = [n * self.geometry.scale for n in lr.shape[-2:]]
        z_lr = blank(made["base"], lr.shape[0], self.geometry.z_channels, *size)
        raw = made.pop("difficulty", None)
        return Condition(z_lr, made, None if raw is None else self._attention(as_array(raw)))

    def _outputs(
        self, lr: Tensor, strength: Array, wanted: tuple[str, ...], restored: bool
    ) -> dict[str, Tensor]:
        """Of one picture, as ``SRDiff.encode_compact``."""
        plane = np.full((1, 1, *lr.shape[-2:]), strength, np.float32)
        up = as_array(imresize(lr, scale=self.geometry.scale))
        inputs = {"x": np.concatenate([as_array(lr) - 0.5, plane], 1), "up": up}
        outputs = cast("list[Tensor]", self.graph("encoder").run(inputs, wanted))
        made = dict(zip(wanted, outputs, strict=True))
        if restored:
            (picture,) = cast("list[Tensor]", self.graph(RESTORER).run({"lr": as_array(lr)}))
            share = cast("Tensor", strength.reshape(1, 1, 1, 1))
            made["base"], made["detail"] = with_restored(made["base"], picture, share_of(share))
        return made

    def _attention(self, raw: Array) -> Tensor:
        """As ``LREncoder.attention`` of the difficulty, whose softplus is still to be taken."""
        difficulty = np.logaddexp(raw - np.float32(self.facts["difficulty_shift"]), np.float32(0))
        sharp = (difficulty / np.float32(self.facts["brightest"])).clip(0, 1)
        return local_mean(cast("Tensor", sharp), self.facts["smooth"])

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        """As ``Backbone.predict``."""
        maps = {name: as_array(value) for name, value in condition.maps.items()}
        state = [as_array(z_t), as_array(mask).astype(np.float32)]
        if self.facts["backbone"] == "sr3":
            state.insert(0, maps["base"] * 2 - 1)
        time = np.broadcast_to(self._time(t), (z_t.shape[0], self.facts["time_dim"]))
        inputs = {"state": np.concatenate(state, 1), "time": time, "features": maps["features"]}
        return cast("Tensor", self.graph("denoiser").run(inputs)[0])

    def _time(self, t: int) -> Array:
        """Sines and cosines of the step: SRDiff's of its number, SR3's of the signal's level."""
        count = self.facts["time_dim"] // 2
        if self.facts["backbone"] == "sr3":
            level = np.float32(self.schedule.signal(t))
            angle = level * np.exp(-math.log(1e4) * np.arange(count, dtype=np.float32) / count)
        else:
            rate = math.log(10_000) / (count - 1)
            angle = (t - 1) * np.exp(np.arange(count, dtype=np.float32) * -rate)
        return np.concatenate([np.sin(angle), np.cos(angle)]).astype(np.float32)

    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        """As ``Backbone.decode``."""
        if (detail := condition.maps.get("detail")) is not None:
            z_0 = z_0 * detail
        return add_scaled(condition.maps["base"] * 1, z_0, self.residual)


def has_graphs(options: UpscaleOptions) -> bool:
    """Whether the model that ``options`` name is a packaged one that comes with graphs."""
    try:
        entry = load_registry().model(options.model)
    except UsageError:  # a file, or a name that nothing has
        return False
    if not entry.bundled:
        return False
    return is_file(graph_file(entry.path.with_suffix("")))


def can_restore(options: UpscaleOptions) -> bool:
    """Whether a model that ``has_graphs`` restores damaged pictures."""
    path = load_registry().model(options.model).path
    return RESTORER in read_graphs(path.with_suffix(""))[0]


def load_plain(options: UpscaleOptions) -> Model:
    """The packaged model that ``options`` name, to be run by ncnn.

    WeightsError where that is not installed.
    """
    path = load_registry().model(options.model).path
    network = cast("Backbone", NcnnNetwork(path.with_suffix("")))
    header = read_header(path)
    device = cast("torch.device", PlainCpu())
    precision = cast("torch.dtype", np.dtype(np.float32))
    return Model(options.model, network, defaults_of(header, path), device, precision, header.card)
