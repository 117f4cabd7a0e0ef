"""What ``yoda bench`` prints: a table per data set, or times."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from yoda_cli.cli import _render

if TYPE_CHECKING:
    from yoda_cli.evaluation.benchmark import Bench

#: The columns that a narrow terminal goes without, the first of them first.
SPARE = ("peak MB", "GFLOP", "of", "maps per second", "calls", "pictures")


def fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """The columns that a terminal has room for, and their cells; all of them elsewhere."""
    if not sys.stdout.isatty():
        return list(columns), [list(row) for row in rows]
    room = shutil.get_terminal_size().columns - 2
    widths = {
        name: 3 + max(len(cell) for cell in (name, *(row[i] for row in rows)))
        for i, name in enumerate(columns)
    }
    for name in spare:
        if sum(widths.values()) <= room:
            break
        widths.pop(name, None)
    kept = [i for i, name in enumerate(columns) if name in widths]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def show(found: Mapping[str, Any], question: Bench, *, as_json: bool) -> None:
    """One JSON document, or a table per data set with what its columns mean."""
    from yoda_cli.evaluation.adaptive import rival_lines
    from yoda_cli.evaluation.report import published_lines

    if as_json:
        _render.document(found, indent=1)
        return
    names = list(found["definitions"])
    columns: tuple[str, ...] = ("method", "pictures", *names)
    columns += ("calls", "of", "GFLOP", "seconds", "peak MB")
    timed = any(line["attention_seconds"] is not None for line in found["summary"])
    columns += ("maps per second",) if timed else ()
    kept = list(columns)
    for dataset in dict.fromkeys(line["dataset"] for line in found["summary"]):
        rows = [
            (
                line["method"],
                str(line["pictures"]),
                *(_render.number(line[name]) for name in names),
                f"{line['calls']:.1f}",
                f"{line['dense_calls']:.1f}",
                _render.number(line["gflop"]),
                f"{line['seconds']:.2f}",
                str(line["peak_mb"]),
                *([throughput(line["attention_seconds"])] if timed else []),
            )
            for line in found["summary"]
            if line["dataset"] == dataset
        ]
        kept, lines = fitting(columns, rows, (*SPARE, *reversed(names[1:])))
        _render.table(f"{dataset}, ×{found['scale']}", kept, lines)
    if gone := [name for name in columns if name not in kept]:
        _render.note(f"no room for: {', '.join(gone)}; a wider window, --csv and --json have them")
    for name, text in found["definitions"].items():
        _render.result(f"{name}: {text}")
    for line in (*rival_lines(found), *published_lines(found, question)):
        _render.result(line)


def throughput(seconds: float | None) -> str:
    """Pictures per second."""
    return f"{1 / seconds:.1f}" if seconds else ""
