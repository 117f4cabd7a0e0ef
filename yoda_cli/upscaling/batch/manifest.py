"""What a folder run has finished, one JSON line per picture, so that a killed run goes on.

A line counts only if the source still has the bytes that were decoded, the settings are the same,
and the result stands there with the bytes that were written. A torn last line counts for nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yoda_cli.files import check_regular, digest_of, name_write_errors
from yoda_cli.files.notes import parse_notes

NAME = ".yoda-manifest.jsonl"


@dataclass(frozen=True)
class Manifest:
    """The file of one output folder; names in it are relative to that folder."""

    folder: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def load(folder: Path) -> Manifest:
        """What is known of ``folder``; nothing if it has no manifest.

        Raises OutputError for a link, a pipe or a device in its place.
        """
        entries: dict[str, dict[str, Any]] = {}
        check_regular(folder / NAME)
        try:
            lines = (folder / NAME).read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            entry = parse_notes(line)
            if isinstance(target := entry.get("target"), str):
                entries[target] = entry
        return Manifest(folder, entries)

    def has(self, source: Path, target: Path, settings: str) -> bool:
        """Whether ``target`` is the finished result of ``source`` with these settings."""
        entry = self.entries.get(self.key(target))
        if entry is None or entry.get("settings") != settings:
            return False
        try:
            return bool(
                target.stat().st_size == entry.get("bytes")
                and digest_of(source) == entry.get("source_sha256")
                and digest_of(target) == entry.get("sha256")
            )
        except OSError:
            return False

    def made(self, target: Path) -> str:
        """The hash of the result that was written to ``target``; empty if none is known."""
        return str(self.entries.get(self.key(target), {}).get("sha256", ""))

    def key(self, target: Path) -> str:
        return os.path.relpath(target, self.folder)

    def add(self, source: Path, target: Path, settings: str, record: Mapping[str, Any]) -> None:
        """One more finished picture, on the disk before this returns.

        ``record`` has the hashes: of the source's bytes that were decoded, and of the result.
        """
        name = self.key(target)
        entry = {
            "source": str(source),
            "source_sha256": record["source_sha256"],
            "target": name,
            "sha256": record["sha256"],
            "bytes": target.stat().st_size,
            "settings": settings,
            "seconds": record.get("seconds"),
        }
        line = (json.dumps(entry) + "\n").encode()
        path = self.folder / NAME
        check_regular(path)
        with name_write_errors(path), path.open("ab") as file:
            if file.tell() and not _ends_with_newline(path):
                line = b"\n" + line  # after a torn line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
