"""A file that a person brings, put into the cache under the name the registry knows it by.

The file keeps its own format; what it is, is told from its tensors, never from its name alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yoda_cli.errors import NotFoundError, UsageError, WeightsError
from yoda_cli.files.paths import is_file
from yoda_cli.weights import Cache, FileEntry, Registry
from yoda_cli.weights.cache import sha256_of, unlike
from yoda_cli.weights.download import install
from yoda_cli.weights.structures import NAMES, differences, identify, shapes_of
from yoda_cli.weights.tensors import read_tensors


@dataclass(frozen=True)
class Imported:
    """Where a file came to stand, as what, and whether its hash is only our first sight of it.

    ``doubt`` says how it differs from what is told of the published file; empty if it does not.
    """

    entry: FileEntry
    path: Path
    description: str
    sha256: str
    pinned: bool
    doubt: str


def import_file(path: Path, wanted: str | None, registry: Registry, cache: Cache) -> Imported:
    """Copy ``path`` into the cache as the file ``wanted``, or as what its tensors say it is.

    ``wanted`` names a file, or a model or data set of one file.
    """
    if not is_file(path):
        raise NotFoundError(f"no such file: {path}")
    slot = single(wanted, registry) if wanted else None
    if slot is None:
        plain = [e for e in registry.files.values() if is_plain(e) and e.name == path.name]
        slot = plain[0] if plain else None
    if slot is not None and is_plain(slot):
        return copy_verified(path, slot, f"a file of {slot.format.upper()}", cache)
    state = read_tensors(path, only_shapes=True)
    identity = identify(state)
    if slot is None:
        slot = only_one(path, identity.structure, identity.description, registry)
    elif slot.structure and identity.structure not in slot.structure:
        expected = " or ".join(NAMES[name] for name in slot.structure)
        wrong = differences(shapes_of(state), slot.structure[0]) or ["it holds more than that"]
        raise WeightsError(
            f"{path} is {identity.description}; {slot.name} must be {expected}: {wrong[0]}"
        )
    return copy_verified(path, slot, identity.description, cache)


def is_plain(entry: FileEntry) -> bool:
    """Whether a file holds no table of tensors: its hash alone tells what it is."""
    return entry.format == "onnx"


def copy_verified(path: Path, slot: FileEntry, description: str, cache: Cache) -> Imported:
    """Verify the hash where one is known, copy, and note it."""
    found, expected = sha256_of(path), cache.expected(slot)
    if expected and found != expected:
        by = "published" if slot.sha256 else "pinned earlier (yoda weights rm --forget drops it)"
        raise WeightsError(f"{path}: its SHA-256 is {found[:12]}…, not the {expected[:12]}… {by}")
    cache.prepare()
    install(path, slot, cache)
    record = cache.note(slot, found, str(path))
    doubt = unlike(slot, path)
    return Imported(slot, cache.path(slot), description, found, record.pinned, doubt)


def single(name: str, registry: Registry) -> FileEntry:
    """The one file that ``name`` stands for."""
    files = registry.files_of(name)
    if len(files) != 1:
        several = ", ".join(entry.name for entry in files) or "no file to import"
        raise UsageError(f"{name} has {several}; name one file with --as")
    return files[0]


def only_one(path: Path, structure: str, description: str, registry: Registry) -> FileEntry:
    """The one registry file of this structure, by the path's own name where there are several."""
    fitting = [entry for entry in registry.files.values() if structure in entry.structure]
    if not structure:  # networks that spandrel tells apart are known by their file's name
        fitting = [e for e in registry.files.values() if not e.structure and e.name == path.name]
    if not fitting:
        raise WeightsError(
            f"{path} is {description}; that is no file of the registry "
            "(any network that spandrel reads can be used as it is: --model FILE)"
        )
    if len(fitting) > 1:
        fitting = [e for e in fitting if path.name in (e.name, *e.also_named)] or fitting
    if len(fitting) > 1:
        names = ", ".join(entry.name for entry in fitting)
        raise UsageError(f"{path} is {description}, which could be {names}: say which with --as")
    return fitting[0]
