"""Our compact networks as ONNX graphs of any size, for runtimes without torch.

Two graphs make up a network. ``encoder``: ``lr`` (B, 3, h, w) in [0, 1] and ``strength`` (B,) in
[0, 1] → ``features`` (B, C, h, w), ``base`` (B, 3, H, W) and ``attention`` (B, 1, h, w).
``denoiser``: ``z_t`` (B, 3, H, W), ``t`` (B,) in 1…T, ``features`` and ``mask`` (B, 1, H, W) of 0
and 1, for ``face`` ``base`` too → ``z_0`` (B, 3, H, W). h and w divide by the stride. All are
float32 but ``t``, int64. Their metadata has what the loop needs beside them. An ``encoder`` that
restores damaged pictures puts out ``detail`` (B, 1, H, W) too, the share of ẑ_0 that counts;
``clean-encoder`` is the same without: less work, and right for ``strength`` 0 alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from yoda_cli.devices.onnx import runtime
from yoda_cli.errors import UsageError, YodaError, need
from yoda_cli.images.resize import phase_taps
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.base import Condition
from yoda_cli.models.sr3 import SR3
from yoda_cli.models.srdiff import SRDiff

Compact = SRDiff | SR3
ANCHOR = {SRDiff: "anchor", SR3: "base"}  # the map that a residual is added to
PARTS = ("encoder", "denoiser")
OPSET = 18
TRACED = (2, 5, 7)  # pictures, and the sides of one in strides: no two numbers alike
CHECKED = (1, 6, 4)  # the same of the example that is compared
TOLERANCE = 1e-4


class EncoderGraph(nn.Module):
    """``encode`` with tensors alone; ``restored`` as of ``SRDiff.encode_compact``."""

    def __init__(self, net: Compact, restored: bool) -> None:
        super().__init__()
        self.net, self.restored = net, restored

    def forward(self, lr: Tensor, strength: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.net, SRDiff):
            condition = self.net.encode_compact(lr, strength, self.restored)
        else:
            condition = self.net.encode(lr, strength)
        assert condition.attention is not None
        maps = condition.maps
        made = maps["features"], maps[ANCHOR[type(self.net)]], condition.attention
        return (*made, maps["detail"]) if "detail" in maps else made


class DenoiserGraph(nn.Module):
    """``denoise`` with tensors alone; its output is ẑ_0."""

    def __init__(self, net: Compact) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, z_t: Tensor, t: Tensor, features: Tensor, mask: Tensor, base: Tensor | None = None
    ) -> Tensor:
        maps = {"features": features} | ({} if base is None else {"seen": base * 2 - 1})
        return self.net.denoise(z_t, t, Condition(z_t, maps), mask)


@dataclass(frozen=True)
class Inputs:
    """Example tensors of a graph's inputs by name, and which of their sides may change."""

    tensors: Mapping[str, Tensor]
    sides: Mapping[str, Mapping[int, Any]]
    outputs: Sequence[str]


def check_exportable(net: Backbone, name: str) -> Compact:
    """``net`` as a compact network; UsageError for any other."""
    if net.takes_gains:
        raise UsageError(
            f"{name} reads what each step of --adaptive gained (injection), which no graph is told"
        )
    if isinstance(net, (SRDiff, SR3)) and net.is_compact and _puts_out_z0(net):
        return net
    raise UsageError(f"{name} is no compact network; only networks like general and face can go")


def _puts_out_z0(net: Compact) -> bool:
    return net.prediction == "x0" and net.config.clip_z0 == 0


def check_packages() -> None:
    """WeightsError where a package that exports or checks is missing."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        need(package, "onnx")


def onnx_graph(net: Compact, part: str) -> bytes:
    """A file's content: one part of a compact network in fp32 on the CPU, its weights included."""
    phase_taps(net.config.scale)  # constants; made while it exports they would be taken for inputs
    return exported(_graph(net, part), _inputs(net, part), facts_of(net, part))


def exported(graph: nn.Module, inputs: Inputs, facts: Mapping[str, Any]) -> bytes:
    """A file's content: a module of any size of input, its weights included."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):  # it speaks of its own progress
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            tuple(inputs.tensors.values()),
            input_names=list(inputs.tensors),
            output_names=list(inputs.outputs),
            dynamic_shapes=tuple(inputs.sides[name] for name in inputs.tensors),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.producer_name = "yoda"
    entry = model.metadata_props.add()
    entry.key, entry.value = "yoda", json.dumps(facts, sort_keys=True)
    return bytes(model.SerializeToString())


def difference(net: Compact, part: str, data: bytes) -> float:
    """The largest difference between onnxruntime's outputs and torch's, which are about 1.

    Raises ``YodaError`` where it is above ``TOLERANCE``: such a file is of no use.
    """
    tensors = _inputs(net, part, CHECKED).tensors
    made = (
        runtime()
        .InferenceSession(data, providers=["CPUExecutionProvider"])
        .run(None, {name: value.numpy() for name, value in tensors.items()})
    )
    with torch.inference_mode():
        expected = _graph(net, part)(*tensors.values())
    expected = (expected,) if isinstance(expected, Tensor) else expected
    pairs = zip(made, expected, strict=True)
    most = max(float((torch.from_numpy(a) - b).abs().max()) for a, b in pairs)
    if not most <= TOLERANCE:
        raise YodaError(f"onnxruntime departs from torch by {most:.1e}: the {part} is not written")
    return most


def _graph(net: Compact, part: str) -> nn.Module:
    if part == "denoiser":
        return DenoiserGraph(net).eval()
    return EncoderGraph(net, _restores(net, part)).eval()


def _restores(net: Compact, part: str) -> bool:
    return part == "encoder" and net.restores_from < 1


def facts_of(net: Compact, part: str) -> dict[str, Any]:
    """What one must know to run the graphs: the picture is ``base`` + ``residual`` · ẑ_0, or
    ``residual`` · ``detail`` · ẑ_0 where there is a ``detail``; z_lr is zero, and ᾱ_t with t in
    0…T is in ``alpha_bar``."""
    return {
        "part": part,
        "scale": net.config.scale,
        "stride": net.geometry.stride,
        "halo": net.geometry.halo,
        "geometry": asdict(net.geometry),
        "residual": 0.5 / net.config.residual_scale,
        "num_steps": net.schedule.num_steps,
        "alpha_bar": [float(a) for a in net.schedule.alpha_bar],
    }


@torch.no_grad()
def _features(net: Compact, lr: Tensor) -> Tensor:
    return net.encode(lr).maps["features"].clone()


def _inputs(net: Compact, part: str, sizes: tuple[int, int, int] = TRACED) -> Inputs:
    scale, stride = net.config.scale, net.geometry.stride
    batch, rows, columns = sizes
    count, down, across = Dim("batch", min=1), Dim("rows", min=1), Dim("columns", min=1)
    small = {0: count, 2: stride * down, 3: stride * across}
    height, width = rows * stride, columns * stride
    if part != "denoiser":
        tensors = {"lr": torch.rand(batch, 3, height, width), "strength": torch.rand(batch)}
        outputs = ["features", "base", "attention"]
        if _restores(net, part):
            outputs.append("detail")
        return Inputs(tensors, {"lr": small, "strength": {0: count}}, outputs)
    align = net.geometry.align
    large = {0: count, 2: align * down, 3: align * across}
    tall, wide = height * scale, width * scale
    tensors = {
        "z_t": torch.randn(batch, 3, tall, wide),
        "t": torch.randint(1, net.schedule.num_steps + 1, (batch,)),
        "features": _features(net, torch.rand(batch, 3, height, width)),
        "mask": torch.ones(batch, 1, tall, wide),
    }
    sides = {"z_t": large, "t": {0: count}, "features": small, "mask": large}
    if isinstance(net, SR3):
        tensors["base"], sides["base"] = torch.rand(batch, 3, tall, wide), large
    return Inputs(tensors, sides, ("z_0",))
