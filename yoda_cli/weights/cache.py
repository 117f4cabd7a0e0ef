"""The folder of downloaded files, and why a file in it may be trusted.

Beside every file stands a record: the SHA-256 it was verified with, its size and time of change.
A file is trusted if its record still fits and the hash is the registry's (or, where the registry
has none, the one pinned at the first download); otherwise it is hashed again. Files arrive under
their final name by a rename, after verification: what is there is whole, whoever was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yoda_cli.errors import WeightsError
from yoda_cli.files import MACHINE, cache_folder, is_alive, read_small
from yoda_cli.files.notes import read_notes
from yoda_cli.files.paths import is_file, is_folder, is_there
from yoda_cli.weights.entries import FileEntry

TAG = """Signature: 8a477f597d28d172789f06886806bc55
# This folder holds what yoda downloaded; it can be deleted at any time.
"""

STALE_SECONDS = 7 * 24 * 3600.0
PRIVATE = re.compile(r"~([0-9a-f]{8})-(\d{1,9})-\d+")  # a process's own file: machine, pid, time
FOUND = "found in the cache"  # the source of a file that yoda did not put there


class DamagedError(WeightsError):
    """A cached file that is not the one that was verified."""


@dataclass(frozen=True)
class Record:
    """What is known of a cached file. ``pinned``: the hash is our own first sight of it.

    ``registry`` is the file that named it, empty for the packaged one, None if that is not known.
    """

    sha256: str
    bytes: int
    mtime_ns: int
    source: str
    pinned: bool
    when: str
    registry: str | None = None

    @staticmethod
    def read(path: Path) -> Record | None:
        """What stands in a file; None without a sound record."""
        try:
            record = Record(**read_notes(path))
        except TypeError:
            return None
        texts = (record.sha256, record.source, record.when, record.registry or "")
        is_sound = all(isinstance(text, str) for text in texts)
        numbers = (record.bytes, record.mtime_ns, record.pinned)
        is_sound = is_sound and all(isinstance(number, int) for number in numbers)
        return record if is_sound and re.fullmatch("[0-9a-f]{64}", record.sha256) else None

    def fits(self, path: Path) -> bool:
        """Whether the file has not changed since."""
        status = path.stat()
        return (self.bytes, self.mtime_ns) == (status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Cache:
    """One cache folder; it is made when something is written."""

    root: Path

    @staticmethod
    def default() -> Cache:
        """``YODA_CACHE_DIR``, or the platform's place."""
        return Cache(cache_folder())

    @property
    def folder(self) -> Path:
        """Where the files stand, under their registry names."""
        return self.root / "weights"

    def path(self, entry: FileEntry) -> Path:
        """Where ``entry`` is or will be."""
        return self.folder / entry.name

    def partial(self, name: str) -> Path:
        """What has come of an unfinished download; its facts stand beside it as ``.json``."""
        return self.folder / ".partial" / name

    def lock(self, name: str) -> Path:
        """The lock of the one process that downloads the file ``name``."""
        return self.folder / ".locks" / f"{name}.lock"

    def record_path(self, name: str) -> Path:
        """Where it is noted what the file ``name`` is."""
        return self.folder / ".records" / f"{name}.json"

    def is_tagged(self) -> bool:
        """Whether yoda made, or took over, the folder as its cache."""
        try:
            return read_small(self.root / "CACHEDIR.TAG") == TAG
        except (OSError, UnicodeDecodeError):
            return False

    def prepare(self) -> None:
        """Make the folders; a cache that cannot be written is an error that says what to do."""
        try:
            for part in (".partial", ".locks", ".records"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            tag = self.root / "CACHEDIR.TAG"
            if not is_there(tag):
                tag.write_text(TAG, encoding="utf-8")
            probe = private(self.partial("probe"))
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise WeightsError(
                f"the cache {self.root} cannot be written ({error.strerror or error}); "
                "name another folder with --cache-dir or YODA_CACHE_DIR"
            ) from error

    def record(self, name: str) -> Record | None:
        """What was noted of the file ``name``; None without a sound note."""
        return Record.read(self.record_path(name))

    def note(self, entry: FileEntry, sha256: str, source: str) -> Record:
        """Write down that the file at its final place has this hash."""
        status = self.path(entry).stat()
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        record = Record(
            sha256, status.st_size, status.st_mtime_ns, source, not entry.sha256, when, entry.origin
        )
        write_json(self.record_path(entry.name), asdict(record))
        return record

    def expected(self, entry: FileEntry) -> str:
        """The SHA-256 a file must have: the registry's, else the pinned one, else empty."""
        if entry.sha256:
            return entry.sha256
        record = self.record(entry.name)
        return record.sha256 if record else ""

    def trusted(self, entry: FileEntry, *, thorough: bool = False) -> Path | None:
        """The verified file, or None if it is not there; a file that changed is an error.

        Hashes only where the record does not fit any more, or if ``thorough``.
        """
        path = self.path(entry)
        try:
            path.stat()
        except OSError:
            return None
        record, expected = self.record(entry.name), self.expected(entry)
        is_known = record is not None and record.fits(path) and record.sha256 == expected
        if is_known and not thorough:
            return path
        found = sha256_of(path)
        if expected and found != expected:
            raise DamagedError(
                f"{path} is damaged: its SHA-256 is {found[:12]}…, not {expected[:12]}… "
                f"(yoda weights rm {entry.name} removes it)"
            )
        if not expected and (what := unlike(entry, path)):
            raise DamagedError(f"{path} is not {entry.name}: {what}")
        with contextlib.suppress(OSError):  # a read-only cache is hashed every time
            self.note(entry, found, record.source if record else FOUND)
        return path

    def trusted_or_none(self, entry: FileEntry) -> Path | None:
        """As ``trusted``, with None for a damaged file."""
        try:
            return self.trusted(entry)
        except DamagedError:
            return None

    def partials(self, name: str = "") -> list[Path]:
        """Unfinished downloads and their facts, of one file or of all."""
        folder = self.folder / ".partial"
        if not is_folder(folder):
            return []
        return sorted(
            p
            for p in folder.iterdir()
            if is_file(p) and (not name or p.name.split("~")[0] in (name, f"{name}.json"))
        )


def unlike(entry: FileEntry, path: Path) -> str:
    """How a file differs from the registry's facts other than the full hash; empty if it fits."""
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        return f"it has {size:,} bytes, not {entry.bytes:,}"
    for kind, prefix in (("sha256", entry.sha256_prefix), ("md5", entry.md5_prefix)):
        if prefix and not digest(path, kind).startswith(prefix):
            return f"its {kind.upper()} does not begin with {prefix}"
    return ""


def digest(path: Path, kind: str) -> str:
    """The hexadecimal hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(kind, usedforsecurity=False)
        ).hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    return digest(path, "sha256")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace ``path`` as a whole."""
    partial = private(path)
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)


def delete(path: Path) -> int:
    """Remove a file if it is there; returns its size."""
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise WeightsError(f"{path} cannot be removed: {error.strerror or error}") from error
    return size


def private(path: Path) -> Path:
    """A name beside ``path`` that no other process uses."""
    return path.with_name(f"{path.name}~{MACHINE}-{os.getpid()}-{time.time_ns()}")


def is_orphan(path: Path) -> bool:
    """Whether a process's private file outlived its process, which ran on this machine."""
    found = PRIVATE.search(path.name)
    return found is not None and found[1] == MACHINE and not is_alive(int(found[2]))


def _is_readable(path: Path) -> bool:
    try:
        return is_file(path) and os.access(path, os.R_OK)
    except OSError:  # a folder that may not be entered
        return False


def found_elsewhere(entry: FileEntry) -> Iterator[Path]:
    """Copies other tools may have kept: torch hub's and Hugging Face's caches."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 (no error without a home)
    base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    torch_home = Path(os.environ.get("TORCH_HOME") or base / "torch")
    hub = (
        os.environ.get("HF_HUB_CACHE")
        or Path(os.environ.get("HF_HOME") or base / "huggingface") / "hub"
    )
    names = {url.rsplit("/", 1)[-1] for url in entry.urls} | {entry.name}
    for name in sorted(names):
        candidates = [torch_home / "hub" / "checkpoints" / name]
        for url in entry.urls:
            parts = url.split("/")
            if "resolve" in parts and len(parts) > 5:
                repository = "models--" + "--".join(parts[3:5])
                candidates += sorted(Path(hub).glob(f"{repository}/snapshots/*/{name}"))
        yield from (path for path in candidates if _is_readable(path))
