"""The graphs that the package ships beside its weights: ONNX graphs that hold none themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch.export import Dim

from yoda_cli.config import UpscaleOptions
from yoda_cli.images.degradation import DAMAGE, LEAST_SIDE, WINDOW
from yoda_cli.images.degradation_net import damage_net
from yoda_cli.models.loading import find_model
from yoda_cli.models.onnx_graphs import PARTS, Inputs, check_exportable, exported, onnx_graph

MODELS = ("general", "face")


def packaged_graphs() -> Iterator[tuple[str, bytes]]:
    """Every graph, and the name of its file in ``checkpoints``."""
    yield f"{DAMAGE.name}.onnx", without_weights(damage_graph(), damage_net().state_dict())
    for name in MODELS:
        options = UpscaleOptions(model=name, device="cpu", precision="fp32")
        net = check_exportable(find_model(options).backbone, name)
        for part in PARTS:
            yield f"{name}-{part}.onnx", without_weights(onnx_graph(net, part), net.state_dict())


def damage_graph() -> bytes:
    """``windows`` (B, 3, h, w) in [0, 1] → ``strengths`` (B,)."""
    net = damage_net()
    windows = torch.rand(3, 3, WINDOW, WINDOW - 7)
    net(windows)  # constants; made while it exports they would be taken for inputs
    sides = {0: Dim("count", min=1)} | {
        axis: Dim(name, min=LEAST_SIDE, max=WINDOW) for axis, name in ((2, "rows"), (3, "columns"))
    }
    return exported(net, Inputs({"windows": windows}, {"windows": sides}, ("strengths",)), {})


def without_weights(data: bytes, keys: Collection[str]) -> bytes:
    """A graph whose weights are called ``<KEY>`` and stand in another file, and which says nothing
    of where its operations come from."""
    import onnx

    model = onnx.load_from_string(data)
    graph = model.graph
    renamed = {
        one.name: f"<{key}>"
        for one in graph.initializer
        if (key := one.name.removeprefix("net.")) in keys
    }
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for weight in graph.initializer:
        del weight.metadata_props[:]
        if weight.name in renamed:
            weight.name = renamed[weight.name]
            weight.ClearField("raw_data")
            weight.data_location = onnx.TensorProto.EXTERNAL
            weight.external_data.add(key="location", value="weights")
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
    del graph.value_info[:], graph.metadata_props[:]
    return bytes(model.SerializeToString(deterministic=True))
