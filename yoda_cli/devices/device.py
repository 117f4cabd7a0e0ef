"""Which device and which precision to compute in, decided by asking and by measuring."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from yoda_cli.arrays import is_plain
from yoda_cli.errors import DeviceError, OutputError, UsageError, WeightsError
from yoda_cli.files import cache_folder, write_atomically
from yoda_cli.files.notes import read_notes
from yoda_cli.files.paths import is_there

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Our names of torch's types.
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

# A half-precision result differs from fp32 by rounding; it must pay for that.
WORTH_IT = 1.15
HOPELESS = 2.0  # times as slow as fp32: no busy moment explains that three times in a row
P = ParamSpec("P")


@dataclass(frozen=True)
class PlainCpu:
    """The CPU, named as ``torch.device`` does, where torch is not loaded."""

    type: str = "cpu"
    index: int | None = None

    def __str__(self) -> str:
        return self.type


def precision_called(name: str) -> torch.dtype:
    """torch's type for one of ``PRECISIONS``."""
    import torch

    dtype: torch.dtype = getattr(torch, PRECISIONS[name])
    return dtype


def precision_name(dtype: object) -> str:
    """fp32, bf16 or fp16, of a type of torch's or NumPy's."""
    kind = str(dtype).removeprefix("torch.")
    return next(name for name, known in PRECISIONS.items() if known == kind)


def pick_device(name: str) -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU; any other name must exist."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        seen = f"{count} GPU{'s' if count > 1 else ''} with CUDA" if count else "no GPU with CUDA"
        raise DeviceError(f"no device {name}: PyTorch sees {seen} here; yoda doctor says more")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("no device mps on this machine")
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto`` measures on the CPU, takes fp16 on MPS, and bf16 (else fp16) on CUDA."""
    import torch

    if name != "auto":
        if name not in PRECISIONS:
            raise UsageError(f"unknown precision {name!r}; use auto, {', '.join(PRECISIONS)}")
        return precision_called(name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    return _fastest_on_cpu() if may_have_bf16() else torch.float32


def may_have_gpu() -> bool:
    """Whether torch may find something faster than the CPU; torch is not asked."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return is_there(Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32/nvcuda.dll"))
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    return any(is_there(Path(name)) for name in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))


def may_have_bf16_units() -> bool:
    """Whether this CPU says that it computes in bf16 (Linux); torch is not asked."""
    with contextlib.suppress(OSError):
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return any(name in said for name in ("amx_bf16", "avx512_bf16"))
    return False


def may_have_bf16() -> bool:
    """Whether this CPU may compute in bf16: it is asked, not timed, where the library can say."""
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # built without it, or no longer called so
        return True


@lru_cache
def _fastest_on_cpu() -> torch.dtype:
    """bf16 where a convolution like ours runs clearly faster in it, else fp32.

    Measured once per machine and torch version, then read from the cache folder: a busy moment
    must not change the bytes of a result.
    """
    import torch

    try:
        record = cache_folder() / "precision.json"
    except WeightsError:  # no home, no cache: measured every time
        return precision_called(_measure())
    key = f"{platform.machine()} {platform.node()} {os.cpu_count()} {torch.__version__}"
    with contextlib.suppress(KeyError, TypeError):
        return precision_called(_recorded(record)[key])
    name = _measure()
    with contextlib.suppress(OSError, OutputError):
        record.parent.mkdir(parents=True, exist_ok=True)
        kept = {**_recorded(record), key: name}  # a home may be shared by several machines
        write_atomically(record, json.dumps(kept).encode())
    return precision_called(name)


def _recorded(record: Path) -> dict[str, str]:
    """What was measured so far, by machine and version of torch."""
    return {key: name for key, name in read_notes(record).items() if name in (*PRECISIONS,)}


def _measure() -> str:
    import torch
    from torch import nn

    layers, inputs = {}, {}
    for name in ("fp32", "bf16"):
        conv = nn.Conv2d(64, 64, 3, padding=1).to(precision_called(name))
        layers[name] = conv.to(memory_format=torch.channels_last)
        x = torch.zeros(1, 64, 96, 96, dtype=precision_called(name))
        inputs[name] = x.to(memory_format=torch.channels_last)
    best = dict.fromkeys(layers, float("inf"))
    with torch.inference_mode():
        for turn in range(12):  # in turn, so that a busy moment meets both
            if turn > 2 and best["bf16"] > HOPELESS * best["fp32"]:
                break  # it is emulated here: each of its calls takes a tenth of a second
            for name, layer in layers.items():
                began = time.perf_counter()
                layer(inputs[name])
                best[name] = min(best[name], time.perf_counter() - began)
    return "bf16" if best["bf16"] * WORTH_IT < best["fp32"] else "fp32"


def upload(host: Tensor, device: torch.device) -> Tensor:
    """A copy of a host tensor on ``device``; to a GPU from page-locked memory, not waited for."""
    if is_plain(host):
        return host
    if device.type != "cuda" or host.device.type != "cpu":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


def compiled(function: Callable[P, Tensor], device: torch.device) -> Callable[P, Tensor]:
    """``function`` compiled by torch: on CUDA once per shape, replayed as a CUDA graph; elsewhere
    for all shapes at once. What cannot be compiled here runs as it is, and torch logs why."""
    import torch

    graphs = device.type == "cuda"
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    run = torch.compile(
        function, mode="reduce-overhead" if graphs else "default", dynamic=not graphs
    )

    def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        if not graphs:
            return run(*args, **kwargs)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return run(*args, **kwargs).clone()  # the graph's own memory is written again

    return call


def autocast(device: torch.device, dtype: torch.dtype) -> Callable[[], AbstractContextManager[Any]]:
    """A factory of contexts in which networks run in ``dtype``; fp32 is no context at all."""
    if precision_name(dtype) == "fp32":
        return nullcontext
    import torch

    return lambda: torch.autocast(device.type, dtype)
