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
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yoda_cli.errors import WeightsError
from yoda_cli.files import cache_folder, is_alive
from yoda_cli.weights.entries import FileEntry

TAG = """Signature: 8a477f597d28d172789f06886806bc55
# This folder holds what yoda downloaded; it can be deleted at any time.
"""

STALE_SECONDS = 7 * 24 * 3600.0


class DamagedError(WeightsError):
    """A cached file that is not the one that was verified."""


@dataclass(frozen=True)
class Record:
    """What is known of a cached file. ``pinned``: the hash is our own first sight of it."""

    sha256: str
    bytes: int
    mtime_ns: int
    source: str
    pinned: bool
    when: str


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

    def partial(self, entry: FileEntry) -> Path:
        """What has come of an unfinished download; its facts stand beside it as ``.json``."""
        return self.folder / ".partial" / entry.name

    def lock(self, entry: FileEntry) -> Path:
        """The lock of the one process that downloads ``entry``."""
        return self.folder / ".locks" / f"{entry.name}.lock"

    def _record_path(self, name: str) -> Path:
        return self.folder / ".records" / f"{name}.json"

    def prepare(self) -> None:
        """Make the folders; a cache that cannot be written is an error that says what to do."""
        try:
            for part in (".partial", ".locks", ".records"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            tag = self.root / "CACHEDIR.TAG"
            if not tag.exists():
                tag.write_text(TAG, encoding="utf-8")
            probe = self.folder / ".partial" / f"probe~{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise WeightsError(
                f"the cache {self.root} cannot be written ({error.strerror or error}); "
                "name another folder with --cache-dir or YODA_CACHE_DIR"
            ) from error

    def record(self, entry: FileEntry) -> Record | None:
        """What was noted of ``entry``; None without a readable note."""
        try:
            return Record(**json.loads(self._record_path(entry.name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def note(self, entry: FileEntry, sha256: str, source: str) -> Record:
        """Write down that the file at its final place has this hash."""
        status = self.path(entry).stat()
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        record = Record(sha256, status.st_size, status.st_mtime_ns, source, not entry.sha256, when)
        write_json(self._record_path(entry.name), asdict(record))
        return record

    def expected(self, entry: FileEntry) -> str:
        """The SHA-256 a file must have: the registry's, else the pinned one, else empty."""
        if entry.sha256:
            return entry.sha256
        record = self.record(entry)
        return record.sha256 if record else ""

    def trusted(self, entry: FileEntry, *, thorough: bool = False) -> Path | None:
        """The verified file, or None if it is not there; a file that changed is an error.

        Hashes only where the record does not fit any more, or if ``thorough``.
        """
        path = self.path(entry)
        try:
            status = path.stat()
        except OSError:
            return None
        record, expected = self.record(entry), self.expected(entry)
        fits = record is not None and (record.bytes, record.mtime_ns) == (
            status.st_size,
            status.st_mtime_ns,
        )
        if fits and record is not None and record.sha256 == expected and not thorough:
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
            self.note(entry, found, record.source if record else "found in the cache")
        return path

    def trusted_or_none(self, entry: FileEntry) -> Path | None:
        """As ``trusted``, with None for a damaged file."""
        try:
            return self.trusted(entry)
        except DamagedError:
            return None

    def remove(self, entry: FileEntry, *, forget: bool) -> int:
        """Delete a file and its unfinished download; the pinned hash stays unless ``forget``.

        Returns the bytes freed.
        """
        doomed = [self.path(entry), *self.partials(entry.name)]
        if forget:
            doomed.append(self._record_path(entry.name))
        return sum(delete(path) for path in doomed)

    def partials(self, name: str = "") -> list[Path]:
        """Unfinished downloads and their facts, of one file or of all."""
        folder = self.folder / ".partial"
        if not folder.is_dir():
            return []
        return sorted(
            p
            for p in folder.iterdir()
            if not name or p.name.split("~")[0] in (name, f"{name}.json")
        )

    def sweep(self, older_than_seconds: float = STALE_SECONDS) -> int:
        """Delete unfinished downloads nobody went on with; returns the bytes freed."""
        now = time.time()
        return sum(
            delete(path)
            for path in self.partials()
            if now - _changed(path) > older_than_seconds or _is_orphan(path)
        )

    def strangers(self, known: set[str]) -> list[Path]:
        """Files in the cache that the registry does not name."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if p.is_file() and p.name not in known)


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
    partial = path.with_name(f"{path.name}~{os.getpid()}")
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


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _is_orphan(path: Path) -> bool:
    """Whether a process's private temporary (``name~pid…``) outlived its process."""
    number = path.name.partition("~")[2].split("-")[0]
    return number.isdecimal() and not is_alive(int(number))


def _is_readable(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.R_OK)
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
