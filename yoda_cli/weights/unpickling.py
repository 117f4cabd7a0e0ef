"""A pickle's program run with few instructions: tensors and plain containers, in bounded memory.

Nothing that a program names is called but the builders of ``BUILDERS``; classes that are not wanted
become ``Inert``. What a program may ask for (storages, copies of containers) is counted against the
size of its file, so a small file takes little memory. Nothing is altered by a program.
"""

from __future__ import annotations

import pickle
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

MAX_STEPS = 2_000_000  # of a program; a checkpoint of 2,000 tensors takes 120,000
MAX_KEY = 64  # members of a tuple that is a key
#: Of the standard library, what Lightning's checkpoints hold; it becomes inert too.
HARMLESS = {"argparse", "pathlib", "datetime", "enum", "copyreg"}
REBUILDERS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
CONTAINERS = (list, tuple, dict, set, frozenset, str, bytes, bytearray)


class RefusedError(Exception):
    """A pickle names something that could do harm, or asks for more than its file can hold."""


class Inert:
    """Stands for an object of a class that is not wanted: does nothing, holds nothing."""


class Table(OrderedDict[Any, Any]):
    """A ``defaultdict`` without its factory."""


@dataclass(frozen=True)
class StorageKind:
    """What torch asks of a storage's class while it reads: the type of its numbers."""

    dtype: torch.dtype


@dataclass(frozen=True)
class Builder:
    """What a program may call; ``counted`` where the result is as large as an argument."""

    build: Callable[..., Any]
    counted: bool = False


def as_key(value: object) -> object:
    """``value`` where its hash is soon known, else something inert.

    A tuple's hash visits all that is in it, however often: sixty levels would take for ever.
    """
    if not isinstance(value, (tuple, frozenset)):
        return value
    is_flat = not any(isinstance(member, (tuple, frozenset)) for member in value)
    return value if is_flat and len(value) <= MAX_KEY else Inert()


def _pairs(items: Any = ()) -> Iterable[tuple[object, object]]:
    return ((as_key(k), v) for k, v in (items.items() if isinstance(items, dict) else items))


def _table(*factory_and_items: Any) -> Table:
    return Table(_pairs(*factory_and_items[1:]))


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """What ``_codecs.encode`` is used for in pickles: bytes in protocol 2."""
    return text.encode("latin1") if encoding == "latin1" else b""


def _builders() -> dict[tuple[str, str], Builder]:
    plain = {"list": list, "tuple": tuple, "bytearray": bytearray}
    found = {("builtins", name): Builder(kind, counted=True) for name, kind in plain.items()}
    for name, kind in (("set", set), ("frozenset", frozenset)):
        found["builtins", name] = Builder(
            lambda items=(), kind=kind: kind(map(as_key, items)), True
        )
    for name in ("complex", "slice", "range"):
        found["builtins", name] = Builder(getattr(sys.modules["builtins"], name))
    found["builtins", "dict"] = Builder(lambda items=(): dict(_pairs(items)), counted=True)
    found["collections", "OrderedDict"] = Builder(
        lambda items=(): OrderedDict(_pairs(items)), counted=True
    )
    found["collections", "defaultdict"] = Builder(_table)
    found["_codecs", "encode"] = Builder(_encode, counted=True)
    found["torch", "Size"] = Builder(torch.Size, counted=True)
    found["torch", "device"] = Builder(torch.device)
    for name in REBUILDERS:
        found["torch._utils", name] = Builder(getattr(torch._utils, name))
    return found


BUILDERS = _builders()


class TensorUnpickler(pickle._Unpickler):
    """Python's own unpickler in Python, as joblib extends it: its instructions can be replaced.

    That in C reserves memory for lengths and memos that a program merely states. ``limit`` is the
    size of the file in bytes.
    """

    limit = 0
    stack: list[Any]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(file, **options)
        self.left, self.steps, self.storages = self.limit, 0, set[object]()

    def find_class(self, module: str, name: str) -> Any:
        module, name = NAME_MAPPING.get((module, name), (module, name))  # Python 2's names
        module = IMPORT_MAPPING.get(module, module)
        if (module, name) in BUILDERS:
            return BUILDERS[module, name]
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if module in ("torch", "torch.storage") and name == "UntypedStorage":
            return StorageKind(torch.uint8)
        top = module.split(".")[0]
        if top in HARMLESS or top not in sys.stdlib_module_names:
            return Inert
        raise RefusedError(f"it would call {module}.{name}")

    def take(self, count: int) -> None:
        """Count what a program asks for against the size of its file."""
        self.left -= count
        if count < 0 or self.left < 0:
            raise RefusedError(f"it asks for more than the {self.limit:,} bytes of the file")

    def call(self, function: object, arguments: object) -> object:
        """What a builder makes; nothing of anything else."""
        if function is Inert or isinstance(function, Inert):
            return Inert()
        if not isinstance(function, Builder) or type(arguments) is not tuple:
            raise pickle.UnpicklingError(f"{type(function).__name__} cannot be called")
        if function.counted and arguments:
            if not isinstance(arguments[0], CONTAINERS):
                raise RefusedError("it builds a container of what is none")
            self.take(len(arguments[0]))
        if any(isinstance(argument, range) for argument in arguments):
            raise RefusedError("it counts through a range")
        return function.build(*arguments)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        self.append(self.call(kind, arguments))

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # arguments by name: no builder has any
        self.load_newobj()

    def load_inst(self) -> None:
        raise pickle.UnpicklingError("an instruction of Python 2's classes")

    load_obj = load_inst

    def load_build(self) -> None:
        """The state of an object: what is wanted of a checkpoint has none."""
        self.stack.pop()

    def load_persid(self) -> None:
        raise pickle.UnpicklingError("a storage without facts")

    def load_binpersid(self) -> None:
        """A storage: (``storage``, kind, key, place, count of numbers, …)."""
        facts = self.stack.pop()
        if not (isinstance(facts, tuple) and len(facts) in (5, 6) and facts[0] == "storage"):
            raise pickle.UnpicklingError("a storage without facts")
        kind, key, count = facts[1], facts[2], facts[4]
        if not (isinstance(key, (str, int)) and isinstance(count, int)):
            raise pickle.UnpicklingError("a storage of unknown size")
        if key not in self.storages:
            self.storages.add(key)
            self.take(count * kind.dtype.itemsize)
        load: Callable[[object], object] = self.persistent_load  # torch's, set from outside
        self.append(load(facts))

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def load_frozenset(self) -> None:
        self.append(frozenset(map(as_key, self.pop_mark())))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.put(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.put([key, value])

    def load_setitems(self) -> None:
        self.put(self.pop_mark())

    def put(self, items: list[Any]) -> None:
        """Keys and values in turn into the table on the stack."""
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[as_key(key)] = value
        elif not isinstance(target, Inert):
            raise pickle.UnpicklingError(f"{type(target).__name__} has no items")

    def load_append(self) -> None:
        self.extend([self.stack.pop()])

    def load_appends(self) -> None:
        self.extend(self.pop_mark())

    def extend(self, items: list[Any]) -> None:
        """Into the list on the stack."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise pickle.UnpicklingError(f"{type(target).__name__} cannot be extended")

    def load_additems(self) -> None:
        items, target = self.pop_mark(), self.stack[-1]
        if isinstance(target, set):
            target.update(map(as_key, items))
        elif not isinstance(target, Inert):
            raise pickle.UnpicklingError(f"{type(target).__name__} is no set")


def _counted(instruction: Callable[[Any], None]) -> Callable[[Any], None]:
    def step(unpickler: TensorUnpickler) -> None:
        unpickler.steps += 1
        if unpickler.steps > MAX_STEPS:
            raise RefusedError(f"its program has more than {MAX_STEPS:,} steps")
        instruction(unpickler)

    return step


TensorUnpickler.dispatch = {
    code: _counted(getattr(TensorUnpickler, instruction.__name__))
    for code, instruction in pickle._Unpickler.dispatch.items()
}


def fact_of(found: object) -> object:
    """What stands around the weights: a number, or the keys of storages. torch compares, looks up
    and prints it, which of anything nested could take for ever."""
    if isinstance(found, list):
        return [key if isinstance(key, (str, int)) else Inert() for key in found]
    return found if isinstance(found, int) else Inert()


def restricted_pickle(limit: int) -> ModuleType:
    """A stand-in for the module ``pickle``, as ``torch.load`` takes one; ``limit`` in bytes."""

    class Limited(TensorUnpickler):
        pass

    def load(file: Any, **options: Any) -> Any:
        return fact_of(Limited(file, **options).load())

    Limited.limit = limit
    module = ModuleType("yoda_restricted_pickle")
    vars(module).update(Unpickler=Limited, load=load)
    return module
