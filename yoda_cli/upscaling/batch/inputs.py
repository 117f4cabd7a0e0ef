"""Which pictures a command line means: files, folders, patterns, lists. Reads names, no pixels."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from yoda_cli.errors import NotFoundError, OutputError, UsageError
from yoda_cli.files import real, shown
from yoda_cli.files.paths import entries_of, is_closed, is_file, is_folder, is_link, is_there
from yoda_cli.images.formats import SUFFIXES

STREAM = Path("-")
MAX_LIST_BYTES = 64 << 20  # half a million long names


@dataclass(frozen=True)
class Found:
    """A picture's path, and the folder it was found in if a folder was named."""

    path: Path
    root: Path | None = None


def find_inputs(
    named: Sequence[Path], listed: Path | None, *, recursive: bool, output: Path | None
) -> list[Found]:
    """Every picture once, in a fixed order: as named, a folder's in name order.

    A folder that is or holds ``output`` gives nothing from there. Raises NotFoundError for a name
    that matches nothing.
    """
    names = [*named, *(read_list(listed) if listed else ())]
    if not names:
        raise UsageError("no pictures were named")
    away = {real(output)} if output is not None and is_folder(output) else set()
    found: dict[Path, Found] = {}
    for name in names:
        for one in _expand(name, recursive=recursive, away=away):
            found.setdefault(one.path.absolute(), one)
    return list(found.values())


def read_list(path: Path) -> list[Path]:
    """One name a line; relative ones are meant from the current folder."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_LIST_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {shown(path)}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read the list {shown(path)}: {reason}") from error
    if len(text) > MAX_LIST_BYTES:
        raise UsageError(f"the list {shown(path)} is longer than {MAX_LIST_BYTES:,} bytes")
    return [Path(os.fsdecode(line)) for line in text.splitlines() if line.strip()]


def _expand(name: Path, *, recursive: bool, away: set[Path]) -> Iterator[Found]:
    if name == STREAM:
        yield Found(STREAM)
    elif is_folder(name):
        inside = list(_walk(name, name, recursive=recursive, away=away))
        if not inside:
            deeper = "" if recursive else "; -r looks into its folders"
            raise NotFoundError(f"no pictures in {shown(name)}{deeper}")
        yield from inside
    elif is_there(name) or is_closed(name):
        yield Found(name)
    elif glob.has_magic(str(name)):
        matches = sorted(Path(p) for p in glob.glob(str(name), recursive=True))  # noqa: PTH207
        files = [p for p in matches if is_file(p)]
        if not files:
            raise NotFoundError(f"nothing matches {shown(name)}")
        yield from map(Found, files)
    else:
        raise NotFoundError(f"no such file: {shown(name)}")


def _walk(folder: Path, root: Path, *, recursive: bool, away: set[Path]) -> Iterator[Found]:
    """Pictures of a folder, then of its folders; linked folders are not entered."""
    entries = entries_of(folder)
    for path in entries:
        is_meant = not path.name.startswith(".") and path.suffix.lower() in SUFFIXES
        if is_meant and (is_file(path) or is_closed(path)):  # reading a closed one says so
            yield Found(path, root)
    if recursive:
        for path in entries:
            if is_folder(path) and not is_link(path) and real(path) not in away:
                yield from _walk(path, root, recursive=True, away=away)


def check_inside(target: Path, folder: Path) -> None:
    """Refuse a target that links lead out of ``folder``."""
    whole, parent = real(folder), real(target.parent)
    if whole != parent and whole not in parent.parents:
        raise OutputError(f"{shown(target)} would lie outside of {shown(folder)}")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of ``count``; every count-th picture in name order."""

    index: int = 1
    count: int = 1

    def take(self, found: Sequence[Found]) -> Sequence[Found]:
        return found[self.index - 1 :: self.count]


def shard_of(text: str | None) -> Shard:
    """``i/n``, or from the environment of a cluster's job."""
    if text is None:
        return Shard()
    if text == "auto":
        for index, count, first in (
            ("RANK", "WORLD_SIZE", 0),
            ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", _number("SLURM_ARRAY_TASK_MIN", 0)),
        ):
            if index in os.environ and count in os.environ:
                text = f"{_number(index, 0) - first + 1}/{_number(count, 1)}"
                break
        else:
            raise UsageError("--shard auto needs RANK and WORLD_SIZE, or a SLURM array job")
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"shard {text!r} is not allowed; give i/n with i from 1 to n, or auto")
    return Shard(int(index), int(count))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise UsageError(f"{name}={text!r} is no number")
    return int(text)
