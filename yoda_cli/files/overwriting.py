"""The one door for every file that a command writes: new, ours, or with ``--overwrite``.

Never an input of the run, never two outputs under one name, and only regular files are replaced.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from yoda_cli.errors import OutputError
from yoda_cli.files import Check, check_regular, real, shown
from yoda_cli.files.paths import is_folder, is_there

#: A file that stands at an output is replaced if it is ours, in any case, never, or kept.
Existing = Literal["own", "overwrite", "fail", "skip"]


def replacing(existing: Existing, is_ours: Callable[[Path], bool]) -> Check:
    """The check of what may be replaced; ``is_ours`` tells a file that this tool made."""

    def check(path: Path) -> None:
        check_regular(path)
        if existing == "overwrite" or not os.path.lexists(path):
            return
        if existing == "fail":
            raise OutputError(f"{shown(path)} exists")
        if not is_ours(path):
            raise OutputError(
                f"{shown(path)} exists and yoda did not make it; use --overwrite to replace it"
            )

    return check


def has_mark(mark: bytes, within: int = 1024) -> Callable[[Path], bool]:
    """Tells text files of ours by what stands in their first bytes."""

    def is_ours(path: Path) -> bool:
        try:
            with path.open("rb") as file:
                return mark in file.read(within)
        except OSError:
            return False

    return is_ours


class Outputs:
    """All files that one command reads or writes: an output is no input and no other's output.

    Every output is claimed before any work, and judged again when it is written.
    """

    def __init__(self, existing: Existing = "own", inputs: Iterable[Path] = ()) -> None:
        self.existing: Existing = existing
        self._inputs = {found for path in inputs if (found := _identity(path)) is not None}
        self._claimed: dict[tuple[Path, str], str] = {}
        self._folds: dict[Path, bool] = {}

    def claim(
        self, path: Path, what: str, is_ours: Callable[[Path], bool], *, makes_folder: bool = False
    ) -> Check:
        """Refuse an output that may not be written, for what it is; returns how to judge it again.

        Its folder has to be there already, unless the command ``makes_folder``.
        """
        if not makes_folder and not is_folder(path.parent):
            raise OutputError(f"no such folder: {shown(path.parent)}")
        self.reserve(path, what)
        check = self.check_of(is_ours)
        check(path)
        return check

    def check_of(self, is_ours: Callable[[Path], bool]) -> Check:
        """How an output is judged apart from other outputs."""
        may_stand = replacing(self.existing, is_ours)

        def check(path: Path) -> None:
            if self._inputs and _identity(path) in self._inputs:
                raise OutputError(f"{shown(path)} is an input of this run; choose another output")
            may_stand(path)

        return check

    def reserve(self, path: Path, what: str) -> None:
        """Keep a name from other outputs."""
        folder = real(path.parent)
        if folder not in self._folds:
            self._folds[folder] = folds_case(folder)
        name = path.name
        if self._folds[folder]:
            name = unicodedata.normalize("NFC", name).casefold()
        first = self._claimed.setdefault((folder, name), what)
        if first is not what:
            raise OutputError(
                f"{shown(path)} is the output of {first} already, not of {what}; "
                "choose another name or folder"
            )

    def holds(self, folder: Path) -> bool:
        """Whether an output was claimed in ``folder``."""
        return real(folder) in {place for place, _ in self._claimed}


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file share, links followed; None for what is not there."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def may_write(folder: Path) -> bool:
    """Whether files can be made in ``folder``, or where it will be made, as far as modes tell."""
    return os.access(_standing(folder), os.W_OK | os.X_OK)


def _standing(folder: Path) -> Path:
    """``folder``, or the nearest above it that is there."""
    return next((p for p in (folder, *folder.parents) if is_folder(p)), folder)


def folds_case(folder: Path) -> bool:
    """Whether ``A`` and ``a`` are one file in ``folder``, or where it will be made."""
    there = _standing(folder)
    with contextlib.suppress(OSError), os.scandir(there) as found:
        entries = [Path(entry.path) for entry in itertools.islice(found, 8)]
        for path in [*entries, there]:
            other = path.with_name(path.name.swapcase())
            if other.name != path.name:
                return is_there(other) and other.samefile(path)
    return False
