"""What ``yoda bench`` prints: a table per data set, or times."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from yoda_cli.cli import _render
from yoda_cli.errors import UsageError

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
        name: 2 + max(len(cell) for cell in (name, *(row[i] for row in rows)))
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
    from yoda_cli.evaluation.report import published_lines

    if as_json:
        _render.document(found, indent=1)
        return
    names = list(found["definitions"])
    columns: tuple[str, ...] = ("method", "pictures", *names)
    columns += ("calls", "of", "GFLOP", "seconds", "peak MB")
    timed = any(line["attention_seconds"] is not None for line in found["summary"])
    columns += ("maps per second",) if timed else ()
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
    for line in published_lines(found, question):
        _render.result(line)


def throughput(seconds: float | None) -> str:
    """Pictures per second."""
    return f"{1 / seconds:.1f}" if seconds else ""


def show_speed(question: Bench, baseline: str | None, *, as_json: bool, quiet: bool) -> int:
    """Time the methods on the first picture at several sizes."""
    from yoda_cli.evaluation.benchmark import load_pair
    from yoda_cli.evaluation.speed import environment, measure

    names = [method.name for method in question.methods]
    if baseline is not None and baseline not in names:
        raise UsageError(
            f"baseline {baseline!r} is no method of this run; there are {', '.join(names)}"
        )
    # The baseline first.
    methods = sorted(question.methods, key=lambda method: method.name != baseline)
    _, lr = load_pair(question.datasets[0].pairs[0], question.scale)
    sizes = (64, 128, 192, 256)
    say = (lambda line: None) if quiet else _render.note
    timings = measure(methods, lr, sizes, question.scale, say)
    if as_json:
        record = {"schema": 1, "environment": environment(), "baseline": methods[0].name}
        _render.document(record | {"timings": [asdict(t) for t in timings]}, indent=1)
        return 0
    columns = ("LR", "method", "median s", "min", "max", "ratio", "s per MP", "GFLOP", "calls")
    rows = [
        (
            f"{t.width}×{t.height}",
            t.method,
            f"{t.median:.3f}",
            f"{t.fastest:.3f}",
            f"{t.slowest:.3f}",
            f"{t.ratio:.3f}",
            f"{t.per_megapixel:.2f}",
            _render.number(t.gflop),
            str(t.calls),
        )
        for t in timings
    ]
    _render.table(f"ratios to {methods[0].name}", columns, rows)
    _render.result(", ".join(f"{key} {value}" for key, value in environment().items() if value))
    return 0
