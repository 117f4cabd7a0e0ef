"""NumPy arrays and torch tensors by the same functions, so that one loop serves both runtimes.

``Tensor`` in an annotation of whoever uses these means either of them. torch is imported by those
alone who hand over its tensors: a run on another runtime never waits for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

Array = np.ndarray[Any, np.dtype[Any]]


def is_plain(x: object) -> bool:
    """Whether it is NumPy's."""
    return isinstance(x, (np.ndarray, np.generic))


def library_of(x: object) -> Any:
    """The module whose functions take ``x``."""
    return np if is_plain(x) else sys.modules["torch"]


def as_array(x: Tensor) -> Array:
    """A NumPy array of the same values, without a copy where they are on the CPU."""
    return cast(Array, x) if is_plain(x) else cast(Array, x.detach().cpu().numpy())


def like(x: Tensor, values: Array) -> Tensor:
    """``values`` as what ``x`` is, of its type and on its device."""
    if is_plain(x):
        return cast("Tensor", values.astype(cast(Any, x).dtype, copy=False))
    torch = sys.modules["torch"]
    return cast("Tensor", torch.from_numpy(np.ascontiguousarray(values)).to(x))


def on_cpu(x: Tensor) -> Tensor:
    """The same where the CPU reads it."""
    return x if is_plain(x) else x.cpu()


def as_float32(x: Tensor) -> Tensor:
    """The same in fp32."""
    return cast("Tensor", cast(Any, x).astype(np.float32, copy=False)) if is_plain(x) else x.float()


def zeros(x: Tensor, *shape: int) -> Tensor:
    """Zeros of the type of ``x``, where it is."""
    return cast("Tensor", np.zeros(shape, x.dtype)) if is_plain(x) else x.new_zeros(shape)


def blank(x: Tensor, *shape: int) -> Tensor:
    """Zeros to be read only: they hold a single number."""
    return spread(zeros(x, *(1 for _ in shape)), *shape)


def is_blank(x: Tensor) -> bool:
    """Whether a single number stands for all of it."""
    return not any(as_array(x).strides if is_plain(x) else x.stride())


def is_repeated(x: Tensor, axis: int) -> bool:
    """Whether all along ``axis`` is one piece of memory."""
    return not (as_array(x).strides[axis] if is_plain(x) else x.stride(axis))


def spread(x: Tensor, *shape: int) -> Tensor:
    """``x`` repeated to a shape, to be read only."""
    return cast("Tensor", library_of(x).broadcast_to(x, shape))


def copied(x: Tensor) -> Tensor:
    """A copy of its own."""
    return cast("Tensor", cast(Any, x).copy()) if is_plain(x) else x.clone()


def where(mask: Tensor, inside: Tensor, outside: Tensor | float) -> Tensor:
    """``inside`` where the mask is True."""
    return cast("Tensor", library_of(inside).where(mask, inside, outside))


def choose(out: Tensor, mask: Tensor, inside: Tensor, outside: Tensor) -> None:
    """The same written into ``out``, which may be one of them."""
    if is_plain(out):
        out[...] = where(mask, inside, outside)
    else:
        library_of(out).where(mask, inside, outside, out=out)


def add_scaled(x: Tensor, y: Tensor, factor: float) -> Tensor:
    """``x`` + ``factor`` · ``y``, in the memory of ``x``."""
    if is_plain(x):
        x += factor * y
        return x
    return x.add_(y, alpha=factor)


def add_product(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """``x`` + ``y`` · ``z``, in the memory of ``x``."""
    if is_plain(x):
        x += y * z
        return x
    return x.addcmul_(y, z)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """One after another in the batch."""
    if len(parts) == 1 and is_plain(parts[0]):
        return parts[0]
    return cast("Tensor", library_of(parts[0]).concatenate(parts))


def taken(x: Tensor, axis: int, index: Array) -> Tensor:
    """The rows, columns, … that ``index`` names, in its order."""
    if is_plain(x):
        return cast("Tensor", np.take(x, index, axis))
    torch = sys.modules["torch"]
    return x.index_select(axis, torch.from_numpy(index).to(x.device))


def threads() -> int:
    """How many threads a run may have: torch's, where it is loaded."""
    if torch := sys.modules.get("torch"):
        return int(torch.get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return usable_cores()


def set_threads(count: int) -> None:
    """How many a run may have, torch's too where it is loaded."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)


def usable_cores() -> int:
    """Those that this process may be run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def without_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` under ``torch.no_grad()``, where torch is loaded."""
    return _under("no_grad", function)


def for_inference(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` under ``torch.inference_mode()``, where torch is loaded."""
    return _under("inference_mode", function)


def _under(mode: str, function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        torch = sys.modules.get("torch")
        with getattr(torch, mode)() if torch else nullcontext():
            return function(*args, **kwargs)

    return run
