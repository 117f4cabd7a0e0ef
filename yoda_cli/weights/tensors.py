"""Tensors out of PyTorch's pickle files, and nothing else: no code in them is ever run.

Published checkpoints name classes that are not installed here (Lightning's, OmegaConf's): these
become inert objects. What could do something (anything of the standard library or of builtins but
plain containers) makes the file refused. Both containers are read, zip and the older one.
"""

from __future__ import annotations

import builtins
import pickle
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from yoda_cli.errors import WeightsError

WRAPPERS = ("state_dict", "model", "params_ema", "params")
BUILTINS = {"set", "frozenset", "list", "dict", "tuple", "complex", "bytearray", "slice", "range"}
STORAGES = {name for name in dir(torch) if name.endswith("Storage")}
REBUILDERS = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"}

#: Of the standard library, what Lightning's checkpoints hold; it becomes inert too.
HARMLESS = {"argparse", "pathlib", "datetime", "enum", "copyreg"}

#: What reading a file that is no checkpoint, or half of one, ends in.
BROKEN = (
    pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError,
    AttributeError, TypeError, AssertionError, MemoryError, OverflowError, zipfile.BadZipFile,
)  # fmt: skip


class RefusedNameError(Exception):
    """A pickle names something that could do harm."""


class Inert:
    """Stands for an object of a class that is not wanted: takes anything, does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __call__(self, *args: object, **kwargs: object) -> Inert:
        return Inert()

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...


class Table(OrderedDict[Any, Any]):
    """A ``defaultdict`` without its factory."""

    def __init__(self, *factory: object) -> None:
        super().__init__()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """What ``_codecs.encode`` is used for in pickles: bytes in protocol 2."""
    return text.encode("latin1") if encoding == "latin1" else b""


class TensorUnpickler(pickle.Unpickler):
    """Resolves the few names that build tensors; all others are inert or refused."""

    def find_class(self, module: str, name: str) -> Any:
        module, name = NAME_MAPPING.get((module, name), (module, name))  # Python 2's names
        module = IMPORT_MAPPING.get(module, module)
        if module == "torch._utils" and name in REBUILDERS:
            return getattr(torch._utils, name)
        if module == "torch" and name in STORAGES | {"Size", "device", "dtype"}:
            return getattr(torch, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module == "torch.storage" and name in ("UntypedStorage", "TypedStorage"):
            return getattr(torch.storage, name)
        if module == "collections" and name in ("OrderedDict", "defaultdict"):
            return OrderedDict if name == "OrderedDict" else Table
        if module == "builtins" and name in BUILTINS:
            return getattr(builtins, name)
        if (module, name) == ("_codecs", "encode"):
            return _encode
        top = module.split(".")[0]
        if top in HARMLESS or top not in sys.stdlib_module_names:
            return Inert
        raise RefusedNameError(f"it would call {module}.{name}")


def _load(file: Any, **options: Any) -> Any:
    return TensorUnpickler(file, **options).load()


def restricted_pickle() -> ModuleType:
    """A stand-in for the module ``pickle``, as ``torch.load`` takes one."""
    module = ModuleType("yoda_restricted_pickle")
    vars(module).update(Unpickler=TensorUnpickler, load=_load)
    return module


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth``, ``.pt``, ``.ckpt`` or ``.safetensors`` file, unwrapped.

    Wrappers (``state_dict``, ``model``, ``params``…) and a ``module.`` before every key are taken
    off. Raises ``WeightsError`` for anything that is not a table of tensors.
    """
    content = _read(path)
    while isinstance(content, Mapping) and any(_wraps(content, key) for key in WRAPPERS):
        content = content[next(key for key in WRAPPERS if _wraps(content, key))]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no table of weights")
    state = {str(k): v.detach() for k, v in content.items() if isinstance(v, Tensor)}
    if not state:
        raise WeightsError(f"{path} holds no table of weights")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _wraps(content: Mapping[Any, Any], key: str) -> bool:
    return key in content and isinstance(content[key], Mapping)


def _read(path: Path) -> object:
    """Whatever the file holds, by the safest reader that can."""
    if not path.is_file():
        raise WeightsError(f"no such checkpoint: {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{path} is not a readable .safetensors file: {error}") from error
    if _is_program(path):
        raise WeightsError(f"{path} is a TorchScript program, not a table of weights")
    try:
        return torch.load(
            path,
            map_location="cpu",
            weights_only=False,
            pickle_module=restricted_pickle(),
            mmap=zipfile.is_zipfile(path),  # gigabytes stay on the disk until they are used
        )
    except RefusedNameError as error:
        raise WeightsError(f"{path} was refused: {error}; code in it is never run") from error
    except BROKEN as error:
        raise WeightsError(f"{path} is not a readable checkpoint (truncated or damaged)") from error


def _is_program(path: Path) -> bool:
    """Whether ``torch.load`` would hand the file to TorchScript."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("constants.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False
