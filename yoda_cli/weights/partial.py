"""An unfinished download on disk: what is durable of it, and how another process goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from yoda_cli.weights.cache import delete, write_json

CHUNK = 1 << 14  # what of a cut answer may be lost
SYNC_BYTES = 4 << 20
SYNC_SECONDS = 0.5


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
        try:
            facts = json.loads(self.facts.read_text(encoding="utf-8"))
            etag, url, done = str(facts["etag"]), str(facts["url"]), int(facts["synced"])
            with self.path.open("r+b") as file:
                if os.fstat(file.fileno()).st_size < done or not etag:
                    raise ValueError("shorter than noted")
                file.truncate(done)
                hashed = hashlib.sha256()
                while chunk := file.read(CHUNK):
                    hashed.update(chunk)
        except (OSError, ValueError, KeyError, TypeError):
            self.restart()
            return
        self.etag, self.url, self.done, self.hashed, self.synced = etag, url, done, hashed, done

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
            write_json(self.facts, {"url": self.url, "etag": self.etag, "synced": self.synced})


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
