"""The files of a benchmark: a table, a page, charts. Claimed before the work, written after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yoda_cli.evaluation.benchmark import Bench
from yoda_cli.evaluation.report import (
    CHART_MARK,
    CSV_MARK,
    PAGE_MARK,
    as_csv,
    chart_names,
    charts,
    page,
)
from yoda_cli.files import Check, make_folder, write_atomically
from yoda_cli.files.overwriting import Outputs, has_mark


@dataclass(frozen=True)
class Files:
    """What is written of a benchmark."""

    csv: Path | None
    html: Path | None
    plots: Path | None


def claim(
    files: Files, question: Bench, ablated: str | None, outputs: Outputs
) -> dict[Path, Check]:
    """Refuse files that would stand on something else; how to judge each again."""
    checks = {}
    for path, what, mark in ((files.csv, "the CSV file", CSV_MARK),
                             (files.html, "the page", PAGE_MARK)):  # fmt: skip
        if path is not None:
            checks[path] = outputs.claim(path, what, has_mark(mark))
    if files.plots is not None:
        make_folder(files.plots)
        for name in chart_names(question, ablated):
            path = chart_path(files.plots, name)
            checks[path] = outputs.claim(path, f"the chart {name}", has_mark(CHART_MARK))
    return checks


def chart_path(folder: Path, name: str) -> Path:
    """The file of a chart."""
    return folder / f"{name.replace(' ', '-')}.svg"


def write(
    found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], question: Bench,
    ablated: str | None, files: Files, checks: Mapping[Path, Check],
) -> None:  # fmt: skip
    """The files that were asked for."""
    drawn = charts(found, ablated)
    texts = {}
    if files.csv is not None:
        texts[files.csv] = as_csv(found)
    if files.html is not None:
        texts[files.html] = page(found, rows, question, drawn)
    if files.plots is not None:
        texts |= {chart_path(files.plots, name): text for name, text in drawn.items()}
    for path, text in texts.items():
        write_atomically(path, text.encode(), checks[path])
