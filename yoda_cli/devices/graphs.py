"""Networks as graphs that onnxruntime runs, without torch: a small file, its weights in another.

A graph's weights are called ``<KEY>`` in it, and are the tensors of that key in a .safetensors
file. ``scripts/make_graphs.py`` writes the packaged ones. Everything is fp32 on the CPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from yoda_cli.arrays import Array, threads
from yoda_cli.errors import WeightsError, need

WEIGHT = re.compile(rb"<([\w.]+)>")
EXTRA = "onnx"  # of the installation
RUNTIME = "onnxruntime"
ENDING = (signal.SIGINT, signal.SIGTERM)
NOBODY = -1  # listens to signals
SMALL = 100_000  # numbers of a graph's weights
ONLY_ERRORS = 3  # of the levels of its log, which goes to stderr


def has_runtime() -> bool:
    """Whether onnxruntime is installed."""
    return importlib.util.find_spec(RUNTIME) is not None


def runtime() -> Any:
    """The module onnxruntime, which every other imports through here.

    Its packages for Linux and macOS send their maker what runs, under a number that they keep in
    the user's cache. Nothing is uploaded by yoda, nor by what it runs on, unless a person set
    ``ORT_DISABLE_TELEMETRY`` to 0; it is read once, by the first import.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def runtime_version() -> str:
    """Of onnxruntime."""
    return str(runtime().__version__)


@dataclass(frozen=True, eq=False)
class Graph:
    """A network ready to run; ``facts`` is what its file says of it.

    ``weights`` are held because the session reads them where they are.
    """

    session: Any
    weights: Sequence[Any]

    @staticmethod
    def of(weights: Path, part: str = "") -> Graph:
        """The packaged graph of a checkpoint (its path without suffix), or of a part of it; kept.

        WeightsError where onnxruntime or a file is missing or damaged.
        """
        return _opened(weights, part)

    @property
    def values(self) -> int:
        """How many numbers its weights are."""
        return sum(tensor.size for tensor in self.weights if isinstance(tensor, np.ndarray))

    @cached_property
    def inputs(self) -> frozenset[str]:
        """The names of what it takes."""
        return frozenset(one.name for one in self.session.get_inputs())

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the file says of its network."""
        said: Mapping[str, Any] = json.loads(
            self.session.get_modelmeta().custom_metadata_map["yoda"]
        )
        return said

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs in their order. RuntimeError says what went wrong, a lack of memory too."""
        ready = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        try:
            return _stoppable(lambda options: self.session.run(None, ready, options))
        except Exception as error:  # its classes derive from nothing else
            raise RuntimeError(str(error)) from error


def _stoppable(run: Callable[[Any], list[Array]]) -> list[Array]:
    """A run that Ctrl-C ends between two nodes of its graph.

    It is one call into a library, of many seconds for a large picture, and Python acts on a signal
    only in its main thread, after the call. So another thread hears of it and ends the call.
    """

    if threading.current_thread() is not threading.main_thread():
        return run(runtime().RunOptions())
    while True:
        options = runtime().RunOptions()
        with _listening(options):
            try:
                return run(options)
            except Exception:  # but for Ctrl-C: that is raised in place of it
                if not options.terminate:
                    raise  # else somebody's handler went on, and so does the run


@contextmanager
def _listening(options: Any) -> Iterator[None]:
    """Meanwhile a signal that ends programs ends the run that has these options."""
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    if before != NOBODY:  # an event loop of somebody's, which must hear its signals
        signal.set_wakeup_fd(before)

    def listen() -> None:
        while number := ear.recv(1):
            if number[0] in ENDING:
                options.terminate = True

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)  # as it was
        mouth.close()
        listener.join()
        ear.close()


@cache
def share_memory() -> None:
    """One store of memory for all graphs of this process, instead of the system's pages.

    What one node has freed the next one takes; the system would fetch and clear its pages again,
    a tenth of a small picture's time and a quarter of a large one's.
    """
    there = runtime()
    place = there.OrtMemoryInfo(
        "Cpu", there.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, there.OrtMemType.DEFAULT
    )
    with suppress(Exception):  # of no class of its own: another user of it in this process has one
        there.create_and_register_allocator(place, there.OrtArenaCfg({}))


def graph_file(weights: Path, part: str = "") -> Path:
    """Where the packaged graph of a checkpoint is, or of a part of it."""
    return weights.with_name(f"{weights.name}-{part}.onnx" if part else f"{weights.name}.onnx")


@cache
def _opened(weights: Path, part: str) -> Graph:
    need(RUNTIME, EXTRA)
    from safetensors import SafetensorError, safe_open

    onnxruntime = runtime()
    path = graph_file(weights, part)
    try:
        data = path.read_bytes()
        keys = sorted({name.decode() for name in WEIGHT.findall(data)})
        with safe_open(weights.with_suffix(".safetensors"), "np") as file:
            tensors = [file.get_tensor(key).astype(np.float32) for key in keys]
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor) for tensor in tensors]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ONLY_ERRORS
        options.intra_op_num_threads = threads()
        if sum(tensor.size for tensor in tensors) < SMALL:  # it runs sooner than it is improved
            level = onnxruntime.GraphOptimizationLevel
            options.graph_optimization_level = level.ORT_DISABLE_ALL
        options.enable_mem_pattern = False  # it holds what all nodes need at once
        share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_external_initializers([f"<{key}>" for key in keys], values)
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # onnxruntime's derive from nothing else
        raise WeightsError(f"{path} does not fit its weights or this {RUNTIME}: {error}") from error
    return Graph(session, [*values, *tensors])
