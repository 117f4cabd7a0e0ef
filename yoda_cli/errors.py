"""Every error a person can meet, each with the exit code the command line ends with.

    YodaError                 1  internal
    ├── UsageError            2  an option's value, an unknown model
    ├── NotFoundError         3  nothing matched: a missing input
    ├── InputError            4  an input that cannot be read or is too large
    ├── WeightsError          5  weights or an extra: missing, damaged, unverifiable, offline
    ├── DeviceError           6  no such device, out of memory
    └── OutputError           7  an output that cannot be written

A message is one line: what was wrong, the value, what to do. Programming mistakes are
``ValueError`` or ``TypeError`` and are not part of this tree.
"""

from __future__ import annotations

import errno
import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

INTERRUPTED = 130  # exit code after Ctrl-C
DISTRIBUTION = "yoda-sr"  # what the package index calls this package
NO_MEMORY = "out of memory; free some, or give a smaller --tile or --block, or --stream"


class YodaError(Exception):
    """Base of the tree; raised itself only for what nobody should ever see."""

    exit_code: ClassVar[int] = 1


class UsageError(YodaError):
    """An option has a value that is not allowed."""

    exit_code = 2


class NotFoundError(YodaError):
    """An input does not exist, or nothing matched."""

    exit_code = 3


class InputError(YodaError):
    """An input exists but cannot be used."""

    exit_code = 4


class WeightsError(YodaError):
    """Weights or an optional extra are missing, damaged or cannot be verified."""

    exit_code = 5


class DeviceError(YodaError):
    """The device is absent or its memory does not suffice."""

    exit_code = 6


class OutputError(YodaError):
    """The result cannot be written where it should go."""

    exit_code = 7


#: How a library says that memory ran out where it raises nothing better: torch on CPU, Windows
#: and MPS; oneDNN; CUDA and its libraries; NumPy and C++; OpenCV; Pillow; libvips; the system.
OUT_OF_MEMORY = re.compile(
    r"out of memory|can(?:'|no)t allocate memory|not enough memory|insufficient memory"
    r"|could not create a primitive(?! descriptor)|could not create a memory"
    r"|failed to allocate|unable to allocate|memory allocation|allocation failed|alloc_failed"
    r"|bad[ _]alloc(?:ation)?\b|failed to map segment|can't start new thread",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left, in whatever words that was said.

    torch's own class is known by its name, so that asking does not import torch.
    """
    if isinstance(error, YodaError):
        return False
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:  # its text may be a file's name
        return error.errno == errno.ENOMEM
    if any(base.__name__ == "OutOfMemoryError" for base in type(error).__mro__):
        return True
    return bool(OUT_OF_MEMORY.search(str(error)))


@contextmanager
def name_surprises(what: str) -> Iterator[None]:
    """Whatever goes wrong inside that nobody foresaw is a failure of ``what`` alone."""
    try:
        yield
    except YodaError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise DeviceError(f"{what}: {NO_MEMORY}") from error
        message = f"{what}: internal error: {type(error).__name__}: {error}"
        raise YodaError(f"{message} (--debug shows the traceback)") from error


def without_frames(error: YodaError) -> YodaError:
    """``error`` and its causes without their tracebacks, whose frames hold pictures."""
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error


def need(module: str, extra: str) -> None:
    """Refuse to go on without an optional package, saying what to install."""
    if importlib.util.find_spec(module) is None:
        raise WeightsError(f"{module} is not installed: {how_to_install(extra)}")


def how_to_install(extra: str = "") -> str:
    """The command that installs this copy again, with an optional part.

    It names the place that this copy came from: a folder, an address, or the package index.
    """
    import importlib.metadata
    import json

    wanted = f"[{extra}]" if extra else ""
    try:
        text = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return f"pip install '{_checkout()}{wanted}'"
    if text is None:
        return f"pip install '{DISTRIBUTION}{wanted}'"
    origin = json.loads(text)
    url = str(origin["url"])
    if "dir_info" in origin:
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"pip install {editable}'{url2pathname(urlsplit(url).path)}{wanted}'"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f"pip install '{DISTRIBUTION}{wanted} @ {url}'"


def _checkout() -> str:
    """The folder that holds this package."""
    spec = importlib.util.find_spec("yoda_cli")
    assert spec is not None  # it is being run
    assert spec.origin is not None
    return spec.origin.removesuffix("__init__.py").rstrip("/\\").removesuffix("yoda_cli")[:-1]
