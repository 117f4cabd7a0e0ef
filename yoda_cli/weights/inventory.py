"""What there is and in which state: the rows of ``yoda weights list``, and tidying up."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from yoda_cli.errors import WeightsError
from yoda_cli.files.paths import is_file, is_there
from yoda_cli.weights.archive import unpack
from yoda_cli.weights.cache import Cache, DamagedError, found_elsewhere, is_orphan, private
from yoda_cli.weights.download import fetch
from yoda_cli.weights.entries import FileEntry
from yoda_cli.weights.network import is_offline
from yoda_cli.weights.registry import Registry
from yoda_cli.weights.structures import about_bytes
from yoda_cli.weights.transfer import Watch


@dataclass(frozen=True)
class Row:
    """One name. ``state``: bundled, cached, partly cached, to download, by hand, or damaged."""

    kind: str
    name: str
    aliases: tuple[str, ...]
    summary: str
    files: tuple[str, ...]
    bytes: int | None
    licence: str
    noncommercial: bool
    trained_with_yoda: bool | None
    state: str
    path: str
    use: str = ""


def inventory(registry: Registry, cache: Cache) -> list[Row]:
    """Every model, then every file, then every data set."""
    states = {entry.name: state_of(entry, cache) for entry in registry.files.values()}
    rows = []
    for model in registry.models.values():
        names = tuple(model.files.values())
        size = model.path.stat().st_size if model.bundled else total(names, registry, cache)
        state = "bundled" if model.bundled else state_of_model([states[name] for name in names])
        path = str(model.path) if model.bundled else ""
        rows.append(
            Row("model", model.name, model.aliases, model.summary, names, size, model.licence,
                model.noncommercial, model.trained_with_yoda, state, path, model.use)
        )  # fmt: skip
    for entry in registry.files.values():
        path = str(cache.path(entry)) if states[entry.name] == "cached" else ""
        size = total([entry.name], registry, cache)
        summary = entry.summary or used_by(entry, registry)
        rows.append(
            Row("file", entry.name, entry.aliases, summary, (), size, entry.licence,
                entry.noncommercial, None, states[entry.name], path)
        )  # fmt: skip
    for dataset in registry.datasets.values():
        folder = dataset_folder(dataset.name, cache)
        state = "cached" if is_unpacked(folder) else "to download" if dataset.files else "by hand"
        path = str(folder) if state == "cached" else ""
        size = total(dataset.files, registry, cache)
        rows.append(
            Row("dataset", dataset.name, (), dataset.summary, dataset.files, size, dataset.licence,
                dataset.noncommercial, None, state, path)
        )  # fmt: skip
    return rows


def state_of(entry: FileEntry, cache: Cache) -> str:
    """How a file can be had."""
    try:
        if cache.trusted(entry):
            return "cached"
    except DamagedError:
        return "damaged"
    return "to download" if entry.urls else "by hand"


def state_of_model(states: Sequence[str]) -> str:
    """The state of a model from those of its files: the first that keeps it from running."""
    missing = [state for state in states if state != "cached"]
    if not missing:
        return "cached"
    if len(missing) < len(states) and missing[0] != "damaged":
        return "partly cached"
    return missing[0]


def total(names: Sequence[str], registry: Registry, cache: Cache) -> int | None:
    """The bytes of files together, on disk, by the registry, or about; None if one is unknown."""
    sizes = []
    for name in names:
        path = cache.path(registry.files[name])
        sizes.append(path.stat().st_size if is_file(path) else size_of(registry.files[name])[0])
    known = [size for size in sizes if size is not None]
    return sum(known) if sizes and len(known) == len(sizes) else None


def size_of(entry: FileEntry) -> tuple[int | None, bool]:
    """The bytes of a download and whether that is exact: else what its tensors take in fp32."""
    if entry.bytes is not None or not entry.structure:
        return entry.bytes, True
    return about_bytes(entry.structure[0]), False


def used_by(entry: FileEntry, registry: Registry) -> str:
    """What a file without a summary of its own is for."""
    models = [m.name for m in registry.models.values() if entry.name in m.files.values()]
    sets = [d.name for d in registry.datasets.values() if entry.name in d.files]
    return f"part of {', '.join(models + sets)}" if models or sets else ""


def dataset_folder(name: str, cache: Cache) -> Path:
    """Where a data set is unpacked."""
    return cache.root / "data" / name


def pull(name: str, registry: Registry, cache: Cache, watch: Watch) -> list[Path]:
    """Everything behind a name, downloaded and verified; a data set is unpacked too."""
    model = next((m for m in registry.models.values() if name in (m.name, *m.aliases)), None)
    if model is not None and model.bundled:
        return [model.path]
    if name in registry.datasets and not registry.datasets[name].files:
        dataset = registry.datasets[name]
        raise WeightsError(f"{name} cannot be downloaded: {dataset.manual} ({dataset.source})")
    paths = [obtain(entry.name, registry, cache, watch) for entry in registry.files_of(name)]
    if name not in registry.datasets:
        return paths
    folder = dataset_folder(name, cache)
    if not is_unpacked(folder):
        unpack_all(paths, folder)
    return [folder]


def is_unpacked(folder: Path) -> bool:
    """Whether a data set's folder is whole."""
    return is_file(folder / ".complete")


def unpack_all(archives: Sequence[Path], folder: Path) -> None:
    """Unpack beside ``folder`` and rename: a person's own folder there is never written to."""
    if is_there(folder):
        raise WeightsError(f"{folder} is there, and it is not what yoda unpacks; move it away")
    for left in folder.parent.glob(f"{folder.name}~*"):
        if is_orphan(left):
            shutil.rmtree(left, ignore_errors=True)
    beside = private(folder)
    try:
        for archive in archives:
            unpack(archive, beside)
        (beside / ".complete").touch()
        beside.rename(folder)
    except OSError as error:
        if not is_unpacked(folder):  # by another process meanwhile
            raise WeightsError(f"cannot unpack to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def missing(names: Iterable[str], registry: Registry, cache: Cache) -> list[FileEntry]:
    """Those of the registry's files that would be downloaded, each once."""
    entries = [registry.files[name] for name in dict.fromkeys(names)]
    return [one for one in entries if one.urls and cache.trusted_or_none(one) is None]


def to_bring(names: Iterable[str], registry: Registry, cache: Cache) -> list[FileEntry]:
    """Those of the registry's files that a person must fetch, each once."""
    entries = [registry.files[name] for name in dict.fromkeys(names)]
    lacking = [one for one in entries if not one.urls and cache.trusted_or_none(one) is None]
    return [one for one in lacking if next(found_elsewhere(one), None) is None]


def obtain(name: str, registry: Registry, cache: Cache, watch: Watch) -> Path:
    """The verified file ``name``; says what it is before anything is fetched."""
    entry = registry.files[name]
    if entry.urls and cache.trusted_or_none(entry) is None and not is_offline():
        watch.say(described(entry, cache))
    return fetch(entry, registry.urls(entry), cache, watch=watch)


def described(entry: FileEntry, cache: Cache) -> str:
    """What is about to be downloaded: name, size, licence, and where it will stand."""
    return f"{terms(entry)}; to {cache.folder}"


def terms(entry: FileEntry) -> str:
    """A file's name, size and licence."""
    size, exact = size_of(entry)
    shown = f"{'' if exact else 'about '}{size / 1e6:,.0f} MB" if size else "size not stated"
    limits = " (non-commercial)" if entry.noncommercial else ""
    return f"{entry.name}: {shown}; licence: {entry.licence}{limits}"


def cached_path(name: str, registry: Registry, cache: Cache) -> list[Path]:
    """Where the verified files behind a name are; an error for one that is not there."""
    model = next((m for m in registry.models.values() if name in (m.name, *m.aliases)), None)
    if model is not None and model.bundled:
        return [model.path]
    if name in registry.datasets:
        folder = dataset_folder(name, cache)
        if not is_unpacked(folder):
            raise WeightsError(f"{name} is not in the cache; yoda weights pull {name}")
        return [folder]
    paths = []
    for entry in registry.files_of(name):
        path = cache.trusted(entry)
        if path is None:
            raise WeightsError(f"{entry.name} is not in the cache; yoda weights pull {entry.name}")
        paths.append(path)
    return paths
