"""Benchmarks: data sets × methods → rows, one per picture and method, kept as they come.

A run that was stopped goes on from its journal; what it measured is not measured again.
"""

from __future__ import annotations

import base64
import hashlib
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.memory import peak_bytes
from yoda_cli.errors import InputError, YodaError
from yoda_cli.evaluation.datasets import Dataset, Pair
from yoda_cli.evaluation.journal import Journal
from yoda_cli.evaluation.methods import Method, Outcome
from yoda_cli.evaluation.metric_table import Frame, Metric, Sample
from yoda_cli.evaluation.metrics import quantise
from yoda_cli.evaluation.scores import definition, measure_all
from yoda_cli.files import digest_of as file_digest
from yoda_cli.files import one_line
from yoda_cli.images import Picture, encode_picture, read_picture
from yoda_cli.images.degradation import damage_net_digest
from yoda_cli.images.resize import crop_to_multiple, imresize
from yoda_cli.models.model import Model
from yoda_cli.upscaling.batch.named_files import digests_of
from yoda_cli.version import __version__

CROP = 128  # side of the crops shown side by side


@dataclass(frozen=True)
class Bench:
    """What is compared, on what, and how."""

    datasets: Sequence[Dataset]
    methods: Sequence[Method]
    metrics: Sequence[Metric]
    frame: Frame
    scale: int
    limit: int | None = None
    crops: bool = False


def run_bench(
    bench: Bench, journal: Journal, on_row: Callable[[dict[str, Any]], None] = lambda row: None
) -> list[dict[str, Any]]:
    """Every row, in order; those of the journal are taken from it."""
    rows = []
    for dataset in bench.datasets:
        for pair in dataset.pairs[: bench.limit]:
            for row in rows_of(dataset.name, pair, bench, journal):
                rows.append(row)
                on_row(row)
    return rows


def rows_of(dataset: str, pair: Pair, bench: Bench, journal: Journal) -> Iterator[dict[str, Any]]:
    """One picture through every method; one that cannot be read or is too
    small is a row that says so."""
    picture = one_line(pair.name)  # it goes into pages and tables
    known = [journal.rows.get((dataset, picture, method.name)) for method in bench.methods]
    if all(row is not None and (not bench.crops or "crop" in row) for row in known):
        yield from (row for row in known if row is not None)
        return  # nothing is read
    try:
        if pair.problem:
            raise InputError(pair.problem)
        hr, lr = load_pair(pair, bench.scale)
        height, width = hr.shape[-2:]
        if 2 * bench.frame.border >= min(height, width):
            border = f"a border of {bench.frame.border}"
            raise InputError(f"{border} leaves nothing of {width}×{height} pixels")
    except YodaError as error:
        yield {"dataset": dataset, "picture": picture, "method": "", "error": str(error)}
        return
    for method, row in zip(bench.methods, known, strict=True):
        if row is None or (bench.crops and "crop" not in row):
            row = {"dataset": dataset, "picture": picture, "method": method.name}
            row |= measure_method(method, hr, lr, bench)
            journal.add(row)
        yield row


def load_pair(pair: Pair, scale: int) -> tuple[Tensor, Tensor]:
    """(HR, LR) in [0, 1] at 8 bits; HR is cropped to LR's size times the factor."""
    hr = quantise(read_picture(pair.hr).rgb)
    if pair.lr is None:
        hr = crop_to_multiple(hr, scale)
        if min(hr.shape[-2:]) == 0:
            raise InputError(f"{pair.hr.name} is smaller than {scale}×{scale} pixels")
        return hr, resized_down(hr, scale)
    lr = quantise(read_picture(pair.lr).rgb)
    wanted = [n * scale for n in lr.shape[-2:]]
    if any(not 0 <= have - want < scale for have, want in zip(hr.shape[-2:], wanted, strict=True)):
        raise InputError(
            f"{pair.hr.name} is {hr.shape[-1]}×{hr.shape[-2]}, and {pair.lr.name} times {scale} "
            f"is {wanted[1]}×{wanted[0]}"
        )
    return hr[..., : wanted[0], : wanted[1]], lr


def resized_down(hr: Tensor, scale: int) -> Tensor:
    """The benchmark's LR: MATLAB's antialiased bicubic on 8 bits, and rounded to them."""
    return quantise(imresize((hr * 255).round().byte(), scale=1 / scale).float() / 255)


def measure_method(method: Method, hr: Tensor, lr: Tensor, bench: Bench) -> dict[str, Any]:
    """One method on one picture: metrics, calls, time, memory."""
    began = time.perf_counter()
    outcome = method.run(lr) if method.knowing is None else method.knowing(lr, hr)
    seconds = time.perf_counter() - began
    sample = Sample(outcome.image, hr, lr, outcome.tile_lines)
    row: dict[str, Any] = {
        "width": hr.shape[-1],
        "height": hr.shape[-2],
        **measure_all(sample, bench.metrics, bench.frame),
        "calls": outcome.calls,
        "planned_calls": outcome.planned_calls,
        "dense_calls": outcome.dense_calls,
        "gflop": None if outcome.flops is None else round(outcome.flops / 1e9, 3),
        "active": [round(value, 6) for value in outcome.active],
        "attention_seconds": outcome.attention_seconds,
        "seconds": round(seconds - (outcome.attention_seconds or 0), 4),
        "peak_mb": round(peak_bytes() / 1e6),
    }
    if bench.crops:
        row["crop"], row["crop_hr"] = crops_of(outcome, hr)
    return row


def crops_of(outcome: Outcome, hr: Tensor) -> tuple[str, str]:
    """The result's and HR's crop where HR has most detail, as data addresses."""
    size = min(CROP, *hr.shape[-2:])
    detail = (hr - hr.roll(1, -1)).abs().mean(1, keepdim=True)
    sums = torch.nn.functional.avg_pool2d(detail, size, stride=max(1, size // 4))
    at = int(sums.flatten().argmax())
    top, left = (n * max(1, size // 4) for n in divmod(at, sums.shape[-1]))
    window = (..., slice(top, top + size), slice(left, left + size))
    return data_address(outcome.image[window]), data_address(hr[window])


def data_address(image: Tensor) -> str:
    packed = encode_picture(Picture(image), kind="WEBP", quality=90)
    return "data:image/webp;base64," + base64.b64encode(packed).decode()


def journal_path(folder: Path, bench: Bench, model: Model, options: UpscaleOptions) -> Path:
    """One journal per question: the same command finds its own."""
    facts = [
        __version__, torch.__version__, model.name, digest_of(model), options, bench.frame,
        bench.scale, [m.name for m in bench.metrics], damage_net_digest(),
    ]  # fmt: skip
    facts += [str(method.settings["file"]) for method in bench.methods if "file" in method.settings]
    facts += [digests_of(options)]
    for pair in (pair for dataset in bench.datasets for pair in dataset.pairs):
        facts += [str(pair), *map(content_of, (pair.hr, pair.lr))]
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return folder / "bench" / f"{key}.jsonl"


def content_of(path: Path | None) -> str:
    """The SHA-256 of a picture; empty where there is none, or none that can be read."""
    try:
        return "" if path is None else file_digest(path)
    except OSError:
        return ""


def digest_of(model: Model) -> str:
    """The weights, in a few characters."""
    total = hashlib.sha256()
    if model.family is not None:  # gigabytes that are not read yet
        for path in model.family.files.values():
            status = path.stat()
            total.update(f"{path} {status.st_size} {status.st_mtime_ns}".encode())
        return total.hexdigest()[:16]
    for name, value in model.backbone.state_dict().items():
        total.update(name.encode())
        total.update(value.detach().float().cpu().numpy().tobytes())
    return total.hexdigest()[:16]


def summarise(rows: Iterable[Mapping[str, Any]], metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """Means over the pictures of each data set and method, of each metric where it applies."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if "error" not in row:
            groups.setdefault((row["dataset"], row["method"]), []).append(row)
    summary = []
    for (dataset, method), members in groups.items():
        line: dict[str, Any] = {"dataset": dataset, "method": method, "pictures": len(members)}
        for name in [metric.name for metric in metrics]:
            line[name] = mean(row[name] for row in members)
        for name in ("calls", "dense_calls", "seconds", "attention_seconds", "gflop"):
            line[name] = mean(row[name] for row in members)
        line["peak_mb"] = max(row["peak_mb"] for row in members)
        line["active"] = active_of(members)
        summary.append(line)
    return summary


def active_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(mean, standard deviation) over the pictures of the share refined in every step."""
    steps = list(zip(*(row["active"] for row in rows), strict=False))
    return [(statistics.fmean(step), statistics.pstdev(step)) for step in steps]


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is there; None of nothing."""
    there = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(there) if there else None


def document(
    bench: Bench, rows: Sequence[Mapping[str, Any]], model: Model, command: str
) -> dict[str, Any]:
    """Everything a reader needs to judge and repeat the numbers."""
    return {
        "schema": 1,
        "yoda": __version__,
        "torch": torch.__version__,
        "model": model.name,
        "device": str(model.device),
        "precision": str(model.precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} ({torch.backends.cpu.get_cpu_capability()})",
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "scale": bench.scale,
        "definitions": {m.name: definition(m, bench.frame) for m in bench.metrics},
        "better": {m.name: m.better for m in bench.metrics},
        "summary": summarise(rows, bench.metrics),
        "rows": [{k: v for k, v in row.items() if not k.startswith("crop")} for row in rows],
        "failed": [row for row in rows if "error" in row],
    }
