"""Whether torch can be loaded at all where the addresses of a process are limited (``ulimit -v``).

Libraries that find no room while they are loaded end the process at once, with no word and any
exit code. So a child tries first.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys

from yoda_cli.errors import NO_MEMORY, DeviceError

#: Loads everything, starts the threads of both kinds, and has some room left.
TRIAL = """
import mmap, yoda_cli.upscaling.batch.run, torch
torch.nn.functional.conv2d(torch.ones(1, 16, 256, 256), torch.ones(16, 16, 3, 3)).sum()
torch.ones(1 << 20).sqrt()
mmap.mmap(-1, 32 << 20)
"""


def check_room() -> None:
    """Raises DeviceError where torch finds no room; asks nothing where nothing is limited."""
    if sys.platform == "win32":  # it has no such limit
        return
    import resource

    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return
    fits = False
    with contextlib.suppress(OSError, MemoryError):
        done = subprocess.run(
            [sys.executable, "-c", TRIAL], check=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        fits = done.returncode == 0
    if not fits:
        raise DeviceError(f"{NO_MEMORY}; ulimit -v leaves too little to load torch")
