"""Memory of this process: its peak, per picture where the system can tell; what is kept, what is
given back, what waits on the disk."""

from __future__ import annotations

import ctypes
import errno
import math
import mmap
import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h

CANNOT_RESERVE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # by file system and C library
TO_DISK = 16 << 20  # bytes from which an array of a scratch folder is a file

_on_disk: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

_listing = threading.Lock()


@dataclass(frozen=True)
class Scratch:
    """Room for arrays: memory, or, from ``TO_DISK`` bytes on, files without a name in ``folder``.

    A file is gone with its array, whatever ends the process. Its pages count as this process's
    memory once they are touched, until ``release_pages``.
    """

    folder: Path | None = None

    def zeros(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Of torch, fp32 if left out. Raises OSError where the disk has no room."""
        import torch

        dtype = dtype or torch.float32
        size = math.prod(shape) * dtype.itemsize
        if self.folder is None or size < TO_DISK or not size:
            return torch.zeros(shape, dtype=dtype)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            _reserve(file, size)
            pages = mmap.mmap(file.fileno(), size)
        with _listing:
            _on_disk.add(pages)
        return torch.frombuffer(pages, dtype=dtype).view(shape)


def _reserve(file: IO[bytes], size: int) -> None:
    """Zeros that have their place on the disk: a full one must not be met while they are used."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in CANNOT_RESERVE:
                raise
    part = bytes(min(size, 1 << 20))
    for written in range(0, size, len(part)):
        file.write(part[: size - written])
    file.flush()


def release_pages() -> None:
    """The pages of arrays on disk no longer count as this process's, where the system can."""
    if sys.platform != "win32":  # it takes pages from who does not use them by itself
        with _listing:
            arrays = list(_on_disk)
        for pages in arrays:
            pages.madvise(mmap.MADV_DONTNEED)


def reset_peak(device: torch.device) -> None:
    """Begin a new peak, where the system lets a process do that (Linux, CUDA).

    With torch what was kept of freed memory does not count. Without it, to give that back and fetch
    it again for each picture took a sixth of the time of a folder of 500×332.
    """
    release_pages()
    if "torch" in sys.modules:
        trim_heap()
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@lru_cache
def keep_freed() -> None:
    """Let the C library keep freed memory for the next tensors, where it can (glibc).

    By default it returns every few layers' worth to the system and asks for it again, page by page:
    a tenth of the time of a picture of 9 megapixels on two cores. Blocks above 32 MB still go back
    at once. Holds for the whole process; ``trim_heap`` returns what is kept.
    """
    _keep(32 << 20)  # the most that glibc takes


@contextmanager
def loading_weights() -> Iterator[None]:
    """What is freed in the block goes back to the system; what is freed later is kept, up to 16 MB.

    For ncnn, which makes other weights of those that it is given: 11 MB less at the peak of a
    picture of 128×128, in the same time.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 256 << 10)
    try:
        yield
    finally:
        _keep(16 << 20)


def _keep(block: int) -> None:
    """Keep freed blocks of up to so many bytes."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_THRESHOLD, block)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def keep_few_kernels() -> None:
    """Let oneDNN keep fewer of the kernels that it makes for each shape of window.

    Some 70 MB less in long runs, for 2 % of their time: most shapes do not come again soon. Only
    heard before the first network call of the process.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "400")


def trim_heap() -> None:
    """Return what the C library keeps of freed memory to the system, where it can (glibc), and
    let go of arrays on disk."""
    release_pages()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_bytes() -> int:
    """The largest resident size since ``reset_peak``, or of the process's life."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in lines if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on a device now."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return available_bytes()


def can_be_had(size: int) -> bool:
    """Whether the system would give so many bytes at once; they are asked for and not touched.

    For libraries that say of memory that ran out only that something went wrong.
    """
    try:
        mmap.mmap(-1, size).close()
    except (OSError, MemoryError, OverflowError):
        return False
    return True


def available_bytes() -> int:
    """Memory that programs can have now without others being moved to the disk."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    import psutil  # a machine that only trains need not have it

    return int(psutil.virtual_memory().available)
