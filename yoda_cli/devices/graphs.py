"""Networks as graphs that ncnn runs, without torch: layers in one file, their weights in another.

``NAME.graphs`` lists the layers in ncnn's own text format; the weights are tensors of
``NAME.safetensors``, by key. ``scripts/make_graphs.py`` writes the packaged ones. ncnn computes
3×3 convolutions by Winograd's method (Lavin and Gray, arXiv:1509.09308), about twice as fast on a
CPU as torch in fp32. Everything is fp32 on the CPU.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from yoda_cli.arrays import Array, threads
from yoda_cli.devices.memory import loading_weights
from yoda_cli.errors import WeightsError, need

RUNTIME = "ncnn"
SUFFIX = ".graphs"
#: What ncnn would store or compute in fewer bits.
OFF = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")
FILLED = 0.5  # of a free piece of memory, at least, by what takes it; else a new one is fetched
FLAGGED = b"\0\0\0\0"  # before weights that might be stored in fewer bits: these are not


def has_runtime() -> bool:
    """Whether ncnn is installed."""
    return importlib.util.find_spec(RUNTIME) is not None


def runtime_version() -> str:
    """Of ncnn."""
    import ncnn

    return str(ncnn.__version__)


@dataclass(frozen=True)
class Weight:
    """A tensor in the order in which ncnn reads them: a ``key``, or fixed ``values``.

    ``is_turned``: its first two axes are the other way round there. ``is_flagged``: it is the
    main weight of a layer, before which a flag says how it is stored.
    """

    key: str = ""
    values: tuple[float, ...] = ()
    is_turned: bool = False
    is_flagged: bool = False


@dataclass(frozen=True)
class Layout:
    """A graph without its weights. ``stops`` are the values after which a signal is heard."""

    layers: str
    weights: tuple[Weight, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Graph:
    """A network ready to run."""

    net: Any
    layout: Layout
    values: int

    @staticmethod
    def of(weights: Path, part: str) -> Graph:
        """A part of a packaged network (the path of its weights without suffix); kept.

        WeightsError where ncnn or a file is missing or damaged.
        """
        return _opened(weights, part, threads())

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str] = ()) -> list[Array]:
        """The ``wanted`` outputs (all, if none is named), each (B, …), of inputs (B, …) by name.

        RuntimeError says what went wrong, which is nearly always a lack of memory.
        """
        wanted = wanted or self.layout.outputs
        ready = {
            name: np.ascontiguousarray(inputs[name], np.float32) for name in self.layout.inputs
        }
        count = len(next(iter(ready.values())))
        rows = [self._run_one({k: v[i] for k, v in ready.items()}, wanted) for i in range(count)]
        _memory().clear()
        if count == 1:
            return [value[None] for value in rows[0]]
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def _run_one(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> list[Array]:
        """One of the batch: ncnn knows none. Python hears a signal between two calls of it."""
        from ncnn import Mat

        extractor = self.net.create_extractor()
        for name, value in inputs.items():
            extractor.input(name, Mat(value))  # the memory is shared
        for name in self.layout.stops:
            _value(extractor, name)
        return [np.array(_value(extractor, name)) for name in wanted]


def _value(extractor: Any, name: str) -> Any:
    code, value = extractor.extract(name)
    if code != 0 or value.empty():
        raise RuntimeError(f"{RUNTIME}: cannot allocate memory for {name} (code {code})")
    return value


def graph_file(weights: Path) -> Path:
    """Where the graphs of a packaged network are."""
    return weights.with_name(f"{weights.name}{SUFFIX}")


def write_graphs(layouts: Mapping[str, Layout], facts: Mapping[str, Any]) -> bytes:
    """The content of a file of graphs; what ``read_graphs`` reads."""
    graphs = {
        name: {
            "inputs": layout.inputs,
            "outputs": layout.outputs,
            "stops": layout.stops,
            "weights": [_written(weight) for weight in layout.weights],
            "layers": layout.layers.splitlines(),
        }
        for name, layout in layouts.items()
    }
    return (json.dumps({"facts": facts, "graphs": graphs}, indent=0) + "\n").encode()


def _written(weight: Weight) -> list[Any]:
    return [weight.key or list(weight.values), int(weight.is_turned), int(weight.is_flagged)]


@cache
def read_graphs(weights: Path) -> tuple[Mapping[str, Layout], Mapping[str, Any]]:
    """The graphs of a packaged network by name, and what is said of it. WeightsError."""
    path = graph_file(weights)
    try:
        read = json.loads(path.read_bytes())
        return {name: _layout(graph) for name, graph in read["graphs"].items()}, read["facts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def _layout(graph: Mapping[str, Any]) -> Layout:
    weights = tuple(
        Weight(name, (), bool(turned), bool(flagged)) if isinstance(name, str)
        else Weight("", tuple(name), bool(turned), bool(flagged))
        for name, turned, flagged in graph["weights"]
    )  # fmt: skip
    names = (tuple(graph[key]) for key in ("inputs", "outputs", "stops"))
    return Layout("\n".join(graph["layers"]) + "\n", weights, *names)


@cache
def _opened(weights: Path, part: str, count: int) -> Graph:
    need(RUNTIME, "")
    from safetensors import SafetensorError, safe_open

    path = graph_file(weights)
    layout = read_graphs(weights)[0].get(part)
    if layout is None:
        raise WeightsError(f"{path} has no graph {part}")
    try:
        with loading_weights(), safe_open(weights.with_suffix(".safetensors"), "np") as file:
            source = Source(file, layout.weights)
            net = _net(layout.layers, source, count)
            if source.error is not None:
                raise source.error
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    if net is None:
        raise WeightsError(f"{path} does not fit its weights or this {RUNTIME}")
    return Graph(net, layout, source.values)


def _tensor(file: Any, weight: Weight) -> Array:
    if not weight.key:
        return np.array(weight.values, np.float32)
    values: Array = file.get_tensor(weight.key).astype(np.float32)
    return values.swapaxes(0, 1) if weight.is_turned else values


class Source:
    """The bytes of the weights in their order, one tensor at a time: none is there twice.

    ncnn asks for them, so an error is kept for later: to ncnn the file ends there.
    """

    def __init__(self, file: Any, weights: Sequence[Weight]) -> None:
        self.file = file
        self.values = 0
        self.error: Exception | None = None
        self.pieces = self._pieces(weights)
        self.rest = memoryview(b"")

    def _pieces(self, weights: Sequence[Weight]) -> Iterator[bytes]:
        for weight in weights:
            if weight.is_flagged:
                yield FLAGGED
            tensor = _tensor(self.file, weight)
            self.values += tensor.size
            yield tensor.tobytes()

    def read(self, size: int) -> memoryview:
        """The next ``size`` bytes, or fewer where a tensor ends."""
        if not self.rest:
            try:
                self.rest = memoryview(next(self.pieces, b""))
            except Exception as error:
                self.error = error
        piece, self.rest = self.rest[:size], self.rest[size:]
        return piece


def _net(layers: str, source: Source, count: int) -> Any:
    """ncnn's network; None where it does not take it."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = count
    net.opt.blob_allocator = net.opt.workspace_allocator = _memory()
    for name in OFF:
        setattr(net.opt, name, False)
    if net.load_param_mem(layers) != 0 or net.load_model(_reader(source)) != 0:
        return None
    return net


@cache
def _memory() -> Any:
    """One store for all graphs: what one layer has freed the next one takes.

    It is never destroyed: after a lack of memory ncnn would complain at the end of the process.
    """
    import ncnn

    store = ncnn.PoolAllocator()
    store.set_size_compare_ratio(FILLED)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(store))
    return store


def _reader(source: Source) -> Any:
    """What hands the weights to ncnn, piece after piece."""
    import ncnn

    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]

    class Reader(ncnn.DataReader):  # type: ignore[misc]
        def read(self, buffer: Any, size: int) -> int:
            piece = source.read(size)
            ctypes.memmove(address(buffer, None), bytes(piece), len(piece))
            return len(piece)

    return Reader()
