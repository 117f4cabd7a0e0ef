"""The graphs that the package ships beside its weights: ONNX graphs that hold none themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim

from yoda_cli.arrays import Array, as_array
from yoda_cli.config import UpscaleOptions
from yoda_cli.images.degradation import DAMAGE, DAMAGE_WEIGHTS, LEAST_SIDE, WINDOW
from yoda_cli.images.degradation_net import damage_net
from yoda_cli.models.loading import find_model
from yoda_cli.models.onnx_graphs import (
    PARTS,
    Inputs,
    check_exportable,
    exported,
    has_structure,
    onnx_graph,
)
from yoda_cli.models.onnx_network import CLEAN_ENCODER

MODELS = ("general", "face")


def packaged_graphs() -> Iterator[tuple[str, bytes]]:
    """Every graph, and the name of its file in ``checkpoints``."""
    yield (
        f"{DAMAGE.name}.onnx",
        without_weights(damage_graph(), damage_net(DAMAGE_WEIGHTS).state_dict()),
    )
    for name in MODELS:
        options = UpscaleOptions(model=name, device="cpu", precision="fp32")
        net = check_exportable(find_model(options).backbone, name)
        for part in (*PARTS, CLEAN_ENCODER) if has_structure(net) else PARTS:
            yield f"{name}-{part}.onnx", without_weights(onnx_graph(net, part), net.state_dict())


def damage_graph() -> bytes:
    """``windows`` (B, 3, h, w) in [0, 1] → ``strengths`` (B,)."""
    net = damage_net(DAMAGE_WEIGHTS)
    windows = torch.rand(3, 3, WINDOW, WINDOW - 7)
    net(windows)  # constants; made while it exports they would be taken for inputs
    sides = {0: Dim("count", min=1)} | {
        axis: Dim(name, min=LEAST_SIDE, max=WINDOW) for axis, name in ((2, "rows"), (3, "columns"))
    }
    return exported(net, Inputs({"windows": windows}, {"windows": sides}, ("strengths",)), {})


def without_weights(data: bytes, state: Mapping[str, Tensor]) -> bytes:
    """A graph whose weights are called ``<KEY>`` and stand in another file, and which says nothing
    of where its operations come from. Weights that were turned beforehand are turned in it."""
    import onnx

    model = onnx.load_from_string(data)
    graph, keys = model.graph, set(state)
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for weight in list(graph.initializer):
        del weight.metadata_props[:]
        key = weight.name.removeprefix("net.")
        if key not in keys and (turned := _turned(onnx.numpy_helper.to_array(weight), state)):
            key = turned
            turn = onnx.helper.make_node("Transpose", [f"<{key}>"], [weight.name], perm=[1, 0])
            graph.node.insert(0, turn)
            weight.name, weight.dims[:] = f"net.{key}", list(state[key].shape)
        if key in keys:
            _move_out(weight, graph, f"<{key}>")
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
    del graph.value_info[:], graph.metadata_props[:]
    return bytes(model.SerializeToString(deterministic=True))


def _turned(values: Array, state: Mapping[str, Tensor]) -> str:
    """The key of the matrix that these are, rows for columns; "" for what is no such matrix."""
    if values.ndim != 2 or min(values.shape) < 2:
        return ""
    pairs = ((key, as_array(value)) for key, value in state.items())
    return next((key for key, own in pairs if np.array_equal(own.T, values)), "")


def _move_out(weight: Any, graph: Any, name: str) -> None:
    """Leave the shape and the name of a weight alone."""
    for node in graph.node:
        node.input[:] = [name if one == weight.name else one for one in node.input]
    weight.name, weight.data_location = name, 1  # EXTERNAL
    weight.ClearField("raw_data")
    weight.external_data.add(key="location", value="weights")
