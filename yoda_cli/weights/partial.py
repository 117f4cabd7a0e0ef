"""An unfinished download on disk: what is durable of it, and how another process goes on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from yoda_cli.files.notes import read_notes
from yoda_cli.weights.cache import delete, write_json

CHUNK = 1 << 16  # bytes taken from the network at once
#: Bytes and seconds after which what has come is made sure on the disk: what a crash may cost.
SYNC_BYTES, SYNC_SECONDS = 4 << 20, 0.5
ETAG = re.compile(r'"[!#-~]{0,500}"')  # a strong one; nothing else may go back in a header


@dataclass(frozen=True)
class Facts:
    """What is noted beside an unfinished download: ``synced`` bytes of ``total``, if that is known,
    came of the answer that bore ``etag``."""

    url: str
    etag: str
    synced: int
    total: int | None = None


def read_facts(partial: Path) -> Facts | None:
    """The facts beside ``partial``; None without sound ones."""
    try:
        facts = Facts(**read_notes(partial.with_name(f"{partial.name}.json")))
    except TypeError:
        return None
    sizes = [facts.synced] if facts.total is None else [facts.synced, facts.total]
    is_sound = isinstance(facts.url, str) and isinstance(facts.etag, str)
    is_sound = is_sound and all(type(size) is int and 0 <= size < 1 << 60 for size in sizes)
    return facts if is_sound and ETAG.fullmatch(facts.etag) else None


@dataclass
class Partial:
    """An unfinished file: its path, the hash of what is in it, and the answer it belongs to.

    ``framed``: the answer's own framing tells a whole body from one that was cut.
    """

    path: Path
    resumable: bool
    done: int = 0
    etag: str = ""
    url: str = ""
    total: int | None = None
    framed: bool = False
    hashed: hashlib._Hash = field(default_factory=hashlib.sha256)
    synced: int = 0
    synced_at: float = 0.0

    @property
    def facts(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def restore(self) -> None:
        """Go on from the synced bytes of an earlier try, where there are any."""
        if not self.resumable:
            return
        facts = read_facts(self.path)
        try:
            if facts is None:
                raise ValueError("no facts")
            with self.path.open("r+b") as file:
                if os.fstat(file.fileno()).st_size < facts.synced:
                    raise ValueError("shorter than noted")
                file.truncate(facts.synced)
                hashed = hashlib.sha256()
                while chunk := file.read(CHUNK):
                    hashed.update(chunk)
        except (OSError, ValueError):
            self.restart()
            return
        self.etag, self.url, self.total = facts.etag, facts.url, facts.total
        self.done, self.synced, self.hashed = facts.synced, facts.synced, hashed

    def restart(self) -> None:
        """Forget everything that came."""
        delete(self.path)
        delete(self.facts)
        self.done, self.synced, self.etag = 0, 0, ""
        self.total, self.framed = None, False
        self.hashed = hashlib.sha256()

    def write(self, file: IO[bytes], chunk: bytes) -> None:
        file.write(chunk)
        self.hashed.update(chunk)
        self.done += len(chunk)
        now = time.monotonic()
        if self.done - self.synced >= SYNC_BYTES or now - self.synced_at > SYNC_SECONDS:
            self.sync(file)
            self.synced_at = now

    def sync(self, file: IO[bytes]) -> None:
        """Make what came durable, and say so beside it."""
        file.flush()
        os.fsync(file.fileno())
        self.synced = self.done
        if self.resumable and self.etag:
            facts = Facts(self.url, self.etag, self.synced, self.total)
            write_json(self.facts, asdict(facts))


def finish(partial: Path, path: Path) -> None:
    """Make ``partial`` durable and give it its final name."""
    with partial.open("r+b") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    with contextlib.suppress(OSError):  # not every system can sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
