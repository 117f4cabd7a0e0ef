"""What a command would download, said before any connection is opened; gigabytes are asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from yoda_cli.cli import _render
from yoda_cli.errors import WeightsError

if TYPE_CHECKING:
    from yoda_cli.weights.entries import FileEntry

ASKED_BYTES = 1_000_000_000  # from here on a person is asked


def total_bytes(files: Sequence[FileEntry]) -> tuple[int, bool]:
    """The bytes of downloads together, and whether that is exact."""
    from yoda_cli.weights.inventory import size_of

    sizes = [size_of(entry) for entry in files]
    return sum(size or 0 for size, _ in sizes), all(size and exact for size, exact in sizes)


def spell(count: int) -> str:
    """A size as a person says it."""
    return f"{count / 1e9:.1f} GB" if count >= ASKED_BYTES else f"{count / 1e6:,.0f} MB"


def summed(files: Sequence[FileEntry]) -> str:
    """How many files, and how large they are together."""
    size, exact = total_bytes(files)
    count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
    return f"{count}, {'' if exact else 'about '}{spell(size)}"


def agree(files: Sequence[FileEntry], *, yes: bool, named: bool = False) -> None:
    """Ask on a terminal before gigabytes are downloaded.

    Without a terminal there is nobody to ask: then they need ``yes``, unless the command ``named``
    the download itself. WeightsError where the answer is no.
    """
    from yoda_cli.weights.network import is_offline

    if yes or total_bytes(files)[0] < ASKED_BYTES or is_offline():
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        if named:
            return
        raise WeightsError(
            f"{summed(files)} would be downloaded, and without a terminal nobody can be asked: "
            "give --yes, or look with --dry-run"
        )
    show(files)
    _render.ask(f"Download {summed(files)}? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise WeightsError("nothing was downloaded")


def show(files: Sequence[FileEntry]) -> None:
    """A line for each file: name, size, licence."""
    from yoda_cli.weights.inventory import terms

    for entry in files:
        _render.note(f"to download: {terms(entry)}")


def say(files: Sequence[FileEntry], *, json_lines: bool, schema: int) -> None:
    """What ``--dry-run`` says of downloads, on stdout."""
    from yoda_cli.weights.inventory import size_of, terms

    for entry in files:
        size, exact = size_of(entry)
        if json_lines:
            _render.document({
                "schema": schema, "status": "to download", "file": entry.name, "bytes": size,
                "exact": exact, "licence": entry.licence, "noncommercial": entry.noncommercial,
            })  # fmt: skip
        else:
            _render.result(f"to download: {terms(entry)}")
