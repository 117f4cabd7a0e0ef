"""What a command would download, said before any connection is opened; gigabytes are asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from yoda_cli.cli import _render
from yoda_cli.errors import WeightsError
from yoda_cli.files import size_text

if TYPE_CHECKING:
    from yoda_cli.weights.entries import FileEntry

ASKED_BYTES = 1_000_000_000  # from here on a person is asked


def total_bytes(files: Sequence[FileEntry]) -> tuple[int, bool]:
    """The bytes of downloads together, and whether that is exact."""
    from yoda_cli.weights.inventory import size_of

    sizes = [size_of(entry) for entry in files]
    return sum(size or 0 for size, _ in sizes), all(size and exact for size, exact in sizes)


def summed(files: Sequence[FileEntry]) -> str:
    """How many files, and how large they are together."""
    size, exact = total_bytes(files)
    count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
    return f"{count}, {'' if exact else 'about '}{size_text(size)}"


def still_to_do(files: Sequence[FileEntry]) -> str:
    """What is to be downloaded, and what to be fetched by hand."""
    fetched, by_hand = [one for one in files if one.urls], [one for one in files if not one.urls]
    parts = [f"{summed(fetched)} to download"] if fetched else []
    if by_hand:
        count = f"{len(by_hand)} file{'s' if len(by_hand) > 1 else ''}"
        parts.append(f"{count} to fetch by hand")
    return " and ".join(parts)


def agree(files: Sequence[FileEntry], *, yes: bool, named: bool = False) -> None:
    """Ask on a terminal before gigabytes are downloaded.

    Without a terminal there is nobody to ask: then they need ``yes``, unless the command ``named``
    the download itself. WeightsError where the answer is no, and where a file has to be fetched by
    hand: nothing is downloaded then that could not be used.
    """
    from yoda_cli.weights.download import by_hand
    from yoda_cli.weights.network import is_offline

    lacking = [entry for entry in files if not entry.urls]
    if lacking:
        more = f"; {len(lacking) - 1} more: see --dry-run" if len(lacking) > 1 else ""
        raise WeightsError(
            f"{lacking[0].name} has no address a program may use: {by_hand(lacking[0])}{more}"
        )
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
    from yoda_cli.weights.download import by_hand
    from yoda_cli.weights.inventory import size_of, terms

    for entry in files:
        size, exact = size_of(entry)
        if json_lines:
            _render.document({
                "schema": schema, "status": "to download" if entry.urls else "by hand",
                "file": entry.name, "bytes": size,
                "exact": exact, "licence": entry.licence, "noncommercial": entry.noncommercial,
            })  # fmt: skip
        elif not entry.urls:
            _render.result(f"by hand: {terms(entry)}; {by_hand(entry)}")
        else:
            _render.result(f"to download: {terms(entry)}")
