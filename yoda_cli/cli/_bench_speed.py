"""``yoda bench --speed``: methods in this process, whole processes, and arithmetic, in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yoda_cli.cli import _render
from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import UsageError

if TYPE_CHECKING:
    from yoda_cli.evaluation.benchmark import Bench
    from yoda_cli.models.model import Model

SIZES = (64, 128, 192, 256)  # LR pixels a side
PROCESS_SIDE = 128  # of the picture that whole processes enlarge


def show_speed(
    question: Bench, model: Model, options: UpscaleOptions, baseline: str | None, *,
    as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Time the methods on the first picture at several sizes, whole processes, and arithmetic."""
    from yoda_cli.evaluation.arithmetic import rates
    from yoda_cli.evaluation.benchmark import load_pair
    from yoda_cli.evaluation.figures import figures_of
    from yoda_cli.evaluation.ncnn_methods import ncnn_methods
    from yoda_cli.evaluation.processes import commands_of, time_processes
    from yoda_cli.evaluation.scaling import folder_gains, threads_gain
    from yoda_cli.evaluation.speed import environment, fitted, measure
    from yoda_cli.images import Picture, write_picture

    names = [method.name for method in question.methods]
    if baseline is not None and baseline not in names:
        raise UsageError(
            f"baseline {baseline!r} is no method of this run; there are {', '.join(names)}"
        )
    # The baseline first.
    rivals = [method for method in question.methods if method.knowing is None]
    methods = sorted(rivals, key=lambda method: method.name != baseline)
    _, lr = load_pair(question.datasets[0].pairs[0], question.scale)
    say = (lambda line: None) if quiet else _render.note
    timings = measure([*methods, *ncnn_methods(options)], lr, SIZES, question.scale, say)
    arithmetic = rates(model) if model.family is None else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = Picture(fitted(lr, PROCESS_SIDE, PROCESS_SIDE))
        write_picture(folder / "picture.png", picture, kind="PNG")
        commands = commands_of(options, folder / "picture.png", folder)
        processes = time_processes(commands, on_round=say)
        gains = [*threads_gain(methods[0], lr, say), *folder_gains(options, lr, folder, say)]
    record: dict[str, Any] = {
        "schema": 3,
        "environment": environment(),
        "baseline": methods[0].name,
        "timings": [asdict(timing) for timing in timings],
        "arithmetic": [asdict(rate) for rate in arithmetic],
        "processes": [asdict(timing) for timing in processes],
        "gains": [asdict(gain) for gain in gains],
    }
    record["figures"] = figures_of(record, PROCESS_SIDE)
    if as_json:
        _render.document(record, indent=1)
    else:
        show(record)
    return 0


def show(record: dict[str, Any]) -> None:
    """The tables, the ratios last, and what they were taken on."""
    columns = ("LR", "method", "median s", "min", "max", "ratio", "s per MP", "GFLOP", "calls")
    keys = ("median", "fastest", "slowest", "ratio")
    rows: list[Sequence[str]] = [
        (
            f"{one['width']}×{one['height']}",
            one["method"],
            *(f"{one[key]:.3f}" for key in keys),
            f"{one['per_megapixel']:.2f}",
            _render.number(one["gflop"]),
            str(one["calls"]),
        )
        for one in record["timings"]
    ]
    _render.table(f"in one process: ratios to {record['baseline']}", columns, rows)
    if record["arithmetic"]:
        rows = [
            (one["what"], f"{one['gflop_per_second']:.1f}", f"{one['ratio']:.2f}")
            for one in record["arithmetic"]
        ]
        _render.table("arithmetic", ("what", "GFLOP/s", "of the matrix product's"), rows)
    rows = [
        (
            one["command"],
            f"{one['seconds']:.2f}",
            "" if one["cpu_seconds"] is None else f"{one['cpu_seconds']:.2f}",
            "" if one["peak_mb"] is None else f"{one['peak_mb']:.0f}",
            f"{one['ratio']:.3f}",
        )
        for one in record["processes"]
    ]
    _render.table(
        "whole processes: ratios to import torch",
        ("command", "median s", "processor s", "peak MB", "ratio"),
        rows,
    )
    rows = [(one["what"], one["over"], f"{one['ratio']:.3f}") for one in record["figures"]]
    _render.table("ratios", ("what", "over that of", "ratio"), rows)
    words = (f"{key} {value}" for key, value in record["environment"].items() if value)
    _render.result(", ".join(words))
