"""One file from the network into the cache: resumed, hashed while it streams, renamed when whole.

The download goes on only from bytes that were synced and whose ETag still holds. Correctness never
depends on the lock: a process without it writes a partial file of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from yoda_cli.errors import WeightsError
from yoda_cli.weights.cache import (
    Cache,
    DamagedError,
    delete,
    found_elsewhere,
    private,
    sha256_of,
    unlike,
)
from yoda_cli.weights.entries import FileEntry
from yoda_cli.weights.locks import exclusive
from yoda_cli.weights.network import Limits, RefusedError, is_offline, new_session
from yoda_cli.weights.partial import Partial, finish
from yoda_cli.weights.tidying import sweep
from yoda_cli.weights.transfer import Watch, stream


def fetch(
    entry: FileEntry, urls: list[str], cache: Cache, limits: Limits | None = None,
    watch: Watch | None = None, *, use_lock: bool = True,
) -> Path:  # fmt: skip
    """The verified file of ``entry``, downloaded unless it is there already.

    Raises ``WeightsError`` with one line that says what to do.
    """
    limits, watch = limits or Limits.asked(), watch or Watch()
    try:
        if path := cache.trusted(entry):
            return path
    except DamagedError as error:
        if is_offline() or not urls:
            raise
        watch.say(f"{error}; fetching it again")
        delete(cache.path(entry))
    if path := adopt(entry, cache, watch):
        return path
    if not urls:
        raise WeightsError(f"{entry.name} has no address a program may use: {by_hand(entry)}")
    if is_offline():
        raise WeightsError(
            f"{entry.name} is not in the cache and yoda is offline; "
            f"online: yoda weights pull {entry.name}"
        )
    cache.prepare()
    sweep(cache)
    with exclusive(cache.lock(entry.name), watch, entry.name, use_lock) as locked:
        if path := cache.trusted(entry):  # another process was faster
            return path
        path = cache.partial(entry.name)
        partial = Partial(path if locked else private(path), resumable=locked)
        try:
            return download(entry, urls, partial, cache, limits, watch)
        except OSError as error:
            raise WeightsError(
                f"{entry.name} cannot be written to {cache.folder}: {error.strerror or error}"
            ) from error
        finally:
            if not locked:
                partial.restart()


def by_hand(entry: FileEntry) -> str:
    """How a person brings a file that no program may fetch."""
    way = f"{entry.manual} ({entry.source})"
    if "yoda weights import" in entry.manual:
        return way
    return f"{way}; then: yoda weights import FILE --as {entry.name}"


def adopt(entry: FileEntry, cache: Cache, watch: Watch) -> Path | None:
    """A copy that another tool downloaded, where its hash is the one we know."""
    expected = cache.expected(entry)
    if not expected and not entry.sha256_prefix:
        return None
    for candidate in found_elsewhere(entry):
        found = sha256_of(candidate)
        if (expected and found != expected) or unlike(entry, candidate):
            continue
        cache.prepare()
        install(candidate, entry, cache)
        cache.note(entry, found, str(candidate))
        watch.say(f"{entry.name}: taken from {candidate} (its hash is right)")
        return cache.path(entry)
    return None


def install(source: Path, entry: FileEntry, cache: Cache) -> None:
    """Copy a file into the cache under its name, as a whole or not at all."""
    partial = private(cache.partial(entry.name))
    try:
        shutil.copyfile(source, partial)
        finish(partial, cache.path(entry))
    except OSError as error:
        raise WeightsError(f"{source} cannot be copied: {error.strerror or error}") from error
    finally:
        delete(partial)


def download(
    entry: FileEntry, urls: list[str], partial: Partial, cache: Cache, limits: Limits, watch: Watch
) -> Path:
    """Try each address in turn until one yields the right bytes."""
    problems: list[str] = []
    partial.restore()
    with new_session() as session:
        for url in sorted(urls, key=lambda url: url != partial.url):  # an unfinished one first
            resumed = partial.url == url and partial.done > 0
            if partial.url != url:
                partial.restart()
                partial.url = url
            for _ in range(2 if resumed else 1):  # old bytes may be wrong: once more without them
                try:
                    stream(session, entry, url, partial, limits, watch)
                    return accept(entry, partial, cache, watch)
                except RefusedError as error:
                    partial.restart()
                    problems.append(str(error))
                except WeightsError as error:
                    problems.append(str(error))
                    break
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise WeightsError(f"{entry.name} could not be downloaded: {problems[0]}{more}")


def accept(entry: FileEntry, partial: Partial, cache: Cache, watch: Watch) -> Path:
    """Verify a whole file, move it to its place, note its hash."""
    found, url = partial.hashed.hexdigest(), partial.url
    expected = cache.expected(entry)
    what = unlike(entry, partial.path)
    if expected and found != expected:
        by = "the registry" if entry.sha256 else "the first download (yoda weights rm --forget)"
        what = f"its SHA-256 is {found[:12]}…, not the {expected[:12]}… of {by}"
    if what:
        partial.restart()
        raise RefusedError(f"{url}: {what}")
    if not vouched(entry, partial, expected):
        partial.restart()
        raise RefusedError(f"{url}: neither the server nor the registry says how long the file is")
    path = cache.path(entry)
    finish(partial.path, path)
    delete(partial.facts)
    record = cache.note(entry, found, url)
    if record.pinned:
        watch.say(f"{entry.name}: no published hash; pinned SHA-256 {found}")
    return path


def vouched(entry: FileEntry, partial: Partial, expected: str) -> bool:
    """Whether anything but hope says that the body was whole."""
    return bool(expected or entry.bytes or entry.sha256_prefix or entry.md5_prefix) or (
        partial.framed
    )
