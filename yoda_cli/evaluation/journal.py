"""What a benchmark measured, kept on disk: a run that was stopped goes on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yoda_cli.files import shown
from yoda_cli.files.notes import parse_notes
from yoda_cli.files.paths import is_file

KEYS = ("dataset", "picture", "method")


def unheard(reason: str) -> None:
    """In place of one who listens."""


@dataclass
class Journal:
    """Rows on disk, one JSON object a line; a half-written last line is left out.

    Where they cannot be kept (no home, no rights, a full disk) ``on_loss`` is told why, once, and
    the benchmark goes on without.
    """

    path: Path | None
    on_loss: Callable[[str], None] = unheard
    rows: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def open(
        path: Path | None, on_loss: Callable[[str], None] = unheard, *, fresh: bool = False
    ) -> Journal:
        """What stands at ``path``; ``fresh`` removes it."""
        journal = Journal(path, on_loss)
        if path is not None and is_file(path):
            with journal._losing(path):
                if fresh:
                    path.unlink()
                else:
                    journal._read(path)
        return journal

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        if not data.endswith(b"\n"):  # killed while writing: the next row starts a line
            os.truncate(path, data.rfind(b"\n") + 1)
        for line in data.splitlines():
            row = parse_notes(line.decode(errors="replace"))
            if all(isinstance(row.get(key), str) for key in KEYS):
                self.keep(row)

    def keep(self, row: dict[str, Any]) -> None:
        """Keep a row here alone."""
        self.rows[row["dataset"], row["picture"], row["method"]] = row

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row here and on disk."""
        self.keep(row)
        if self.path is None:
            return
        with self._losing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    @contextlib.contextmanager
    def _losing(self, path: Path) -> Iterator[None]:
        """What the system refuses inside costs the place on disk, and no row."""
        try:
            yield
        except OSError as error:
            self.path = None
            self.on_loss(f"cannot write {shown(path)}: {error.strerror or error}")
