"""Removing what the cache holds: only what its own records know, never under a running download.

A folder of a person's own may be named as the cache: what yoda did not put there stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from yoda_cli.errors import WeightsError
from yoda_cli.files.paths import is_file, is_folder, is_link
from yoda_cli.weights.cache import (
    FOUND,
    PRIVATE,
    STALE_SECONDS,
    Cache,
    delete,
    is_orphan,
    sha256_of,
)
from yoda_cli.weights.entries import FileEntry
from yoda_cli.weights.locks import idle
from yoda_cli.weights.partial import read_facts
from yoda_cli.weights.registry import Registry, load_registry, registry_path


def prune(registry: Registry, cache: Cache, *, dry_run: bool) -> list[tuple[Path, int]]:
    """Remove unfinished downloads, and files that no registry names any more: (path, bytes) each.

    A file stays where the registry that it was fetched by cannot be read, where it is not the one
    that was fetched, and while another process downloads it.
    """
    if not is_folder(cache.folder):
        return []
    if not cache.is_tagged():
        raise WeightsError(f"{cache.root} has no CACHEDIR.TAG of yoda's: nothing in it was removed")
    gone = []
    for name in names_in(cache, registry):
        if not doomed(name, registry, cache):
            continue  # no lock is made for what is not there
        with idle(cache.lock(name), without_locks=False) as is_idle:
            for path in doomed(name, registry, cache) if is_idle else ():
                gone.append((path, path.stat().st_size))
                if not dry_run:
                    delete(path)
    return gone


def doomed(name: str, registry: Registry, cache: Cache) -> list[Path]:
    """What of the file ``name`` would go."""
    return [*unfinished(name, cache), *forgotten(name, registry, cache)]


def sweep(cache: Cache) -> int:
    """Remove what dead processes left, and unfinished downloads that nobody went on with for a
    week; returns the bytes freed."""
    freed = sum(delete(path) for path in cache.partials() if is_orphan(path))
    for name in sorted(started(cache)):
        old = [path for path in cache.partials(name) if is_old(path)]
        with idle(cache.lock(name), without_locks=False) as is_idle:
            freed += sum(delete(path) for path in old if is_idle)
    return freed


def remove(entry: FileEntry, cache: Cache, *, forget: bool) -> int:
    """Remove a file and its unfinished download; the pinned hash stays unless ``forget``.

    Returns the bytes freed. Raises ``WeightsError`` while another process downloads it.
    """
    doomed = [cache.path(entry), *unfinished(entry.name, cache)]
    if forget:
        doomed.append(cache.record_path(entry.name))
    if not is_folder(cache.folder):
        return 0
    with idle(cache.lock(entry.name), without_locks=True) as is_idle:
        if not is_idle:
            raise WeightsError(f"{entry.name} is being downloaded by another process")
        return sum(delete(path) for path in doomed)


def names_in(cache: Cache, registry: Registry) -> list[str]:
    """What the cache's records, its unfinished downloads and the registry call files."""
    records = cache.folder / ".records"
    noted = [path.stem for path in records.glob("*.json")] if is_folder(records) else []
    known = [name for name in noted if cache.record(name) is not None]
    return sorted({*known, *started(cache), *registry.files})


def started(cache: Cache) -> set[str]:
    """The downloads that were begun: by the facts beside what came of them, or a private name."""
    names = set()
    for path in cache.partials():
        name = path.name.split("~")[0]
        if PRIVATE.search(path.name) or read_facts(cache.partial(name)) is not None:
            names.add(name)
    return names


def unfinished(name: str, cache: Cache) -> Iterator[Path]:
    """What has come of a download of ``name``; of another process's own only what it left."""
    for path in cache.partials(name):
        if "~" not in path.name or is_orphan(path) or is_old(path):
            yield path


def forgotten(name: str, registry: Registry, cache: Cache) -> Iterator[Path]:
    """The file of ``name`` and its record, if it is the one fetched and no registry names it."""
    record, path = cache.record(name), cache.folder / name
    if record is None or record.source == FOUND or name in registry.files:
        return
    if record.registry is None or is_link(path) or not is_file(path):
        return
    if not record.fits(path):
        return
    named = names_of(record.registry)
    if named is not None and name not in named and sha256_of(path) == record.sha256:
        yield path
        yield cache.record_path(name)


def names_of(origin: str) -> frozenset[str] | None:
    """The files that a registry names; None if it cannot be read. Empty is the packaged one."""
    try:
        paths = [registry_path(), Path(origin)] if origin else [registry_path()]
        return frozenset(load_registry(paths).files)
    except WeightsError:
        return None


def is_old(path: Path) -> bool:
    """Whether nothing was written to it for a week."""
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False
