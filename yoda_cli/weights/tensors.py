"""Tensors out of PyTorch's files, and nothing else: no code in them is ever run.

Published checkpoints name classes that are not installed here (Lightning's, OmegaConf's): these
become inert objects. What could do something makes the file refused, and so does what would take
more memory than the file's own size. Both containers are read, zip and the older one.
"""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from yoda_cli.errors import WeightsError
from yoda_cli.files.paths import is_file
from yoda_cli.weights.unpickling import RefusedError, restricted_pickle

WRAPPERS = ("state_dict", "model", "params_ema", "params")
DEEPEST = 16  # wrappers around each other
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how the two containers begin
SHARED = 4  # times that a file may hand out the values it holds: weights under several names

#: What reading a file that is no checkpoint, or half of one, ends in.
BROKEN = (
    pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError,
    AttributeError, TypeError, AssertionError, MemoryError, OverflowError, zipfile.BadZipFile,
)  # fmt: skip


def read_tensors(path: Path, *, prefix: str = "", only_shapes: bool = False) -> dict[str, Tensor]:
    """The tensors of a ``.pth``, ``.pt``, ``.ckpt`` or ``.safetensors`` file, unwrapped.

    Wrappers (``state_dict``, ``model``, ``params``…) and a ``module.`` before every key are taken
    off. Keys without ``prefix`` are left out. With ``only_shapes`` tensors may be views larger than
    the file: their values are not to be used. Raises ``WeightsError`` for anything that is not a
    table of tensors.
    """
    content = _read(path)
    for _ in range(DEEPEST):
        wrapped = [key for key in WRAPPERS if isinstance(content, Mapping) and _wraps(content, key)]
        if not wrapped:
            break
        content = content[wrapped[0]]  # type: ignore[index]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no table of weights")
    tensors = ((k, v) for k, v in content.items() if isinstance(v, Tensor))
    state = {k: v.detach() for k, v in tensors if isinstance(k, str)}
    if not state:
        raise WeightsError(f"{path} holds no table of weights")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if key.startswith(prefix)}
    if not only_shapes:
        check_extents(path, state)
    return state


def check_extents(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that would take more memory than the file, were they copied."""
    size, total = path.stat().st_size, 0
    for key, value in state.items():
        taken = value.numel() * value.element_size()
        total += taken
        if taken > value.untyped_storage().nbytes() or total > SHARED * size:
            raise WeightsError(
                f"{path} was refused: {key} is larger than the file's {size:,} bytes"
            )


def _wraps(content: Mapping[object, object], key: str) -> bool:
    return key in content and isinstance(content[key], Mapping)


def _read(path: Path) -> object:
    """Whatever the file holds, by the safest reader that can."""
    if not is_file(path):
        raise WeightsError(f"no such checkpoint: {path}")
    # A person's file may be in either format; the cache gives it the name of the registry.
    if path.suffix == ".safetensors" and not zipfile.is_zipfile(path):
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{path} is not a readable .safetensors file: {error}") from error
    try:
        is_zip = _is_zip(path)
        unpickler = restricted_pickle(path.stat().st_size)
        if path.suffix == ".safetensors":  # torch would go by the name alone
            with path.open("rb") as file:
                return torch.load(
                    file, map_location="cpu", weights_only=False, pickle_module=unpickler
                )
        return torch.load(
            path,
            map_location="cpu",
            weights_only=False,
            pickle_module=unpickler,
            mmap=is_zip,  # gigabytes stay on the disk until they are used
        )
    except RefusedError as error:
        raise WeightsError(f"{path} was refused: {error}; code in it is never run") from error
    except BROKEN as error:
        raise WeightsError(f"{path} is not a readable checkpoint (truncated or damaged)") from error


def _is_zip(path: Path) -> bool:
    """Which container ``torch.load`` will take the file for; refuses what it would do more with."""
    with path.open("rb") as file:
        head = file.read(len(ZIP))
    if head != ZIP:
        if not head.startswith(PICKLE) or _is_tar(path):
            raise pickle.UnpicklingError("neither container")
        return False
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    names = sorted(record.filename.partition("/")[2] for record in records)
    if "constants.pkl" in names:
        raise RefusedError("it is a TorchScript program, not a table of weights")
    if names != sorted(torch._C.PyTorchFileReader(str(path)).get_all_records()):
        raise zipfile.BadZipFile("two tables of contents")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise RefusedError("its records are compressed")
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise RefusedError("its records are larger than the file")
    return True


def _is_tar(path: Path) -> bool:
    """A container of PyTorch before 0.2, unpacked to files while it is read."""
    try:
        tarfile.open(path, mode="r:").close()
    except tarfile.TarError:
        return False
    return True
