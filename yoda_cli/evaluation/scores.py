"""From the names of metrics to numbers: networks are fetched, one sample is measured by all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.evaluation.metric_table import (
    IDENTITY,
    LIBRARIES,
    NAMES,
    NETWORKS,
    PLAIN,
    Frame,
    Metric,
    Sample,
)
from yoda_cli.evaluation.metrics import quantise
from yoda_cli.evaluation.metrics.identity import Identity, load_identity
from yoda_cli.evaluation.metrics.niqe import packaged_model
from yoda_cli.evaluation.metrics.perceptual import MIN_SIDE, Distance, load_dists, load_lpips
from yoda_cli.weights import Cache, Registry, Watch, obtain

DEFAULT = ("psnr", "ssim", "texture", "detail", "colour", "lr-psnr", "niqe", "seam")


def frame_of(channel: str, border: int) -> Frame:
    """Check and pack the two options."""
    if channel not in ("y", "rgb"):
        raise UsageError(f"channel {channel!r} is not allowed; use y or rgb")
    if border < 0:
        raise UsageError(f"border {border} is not allowed; give 0 or more")
    return Frame(channel == "y", border)


def find_metrics(
    names: Sequence[str], registry: Registry, cache: Cache, watch: Watch
) -> tuple[list[Metric], list[str]]:
    """The metrics called ``names``, and a line for each that cannot be had: its column is empty."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UsageError(f"unknown metric {unknown[0]!r}; use {', '.join(NAMES)}")
    found, missing = [], []
    for name in dict.fromkeys(names):
        if name in PLAIN:
            found.append(PLAIN[name])
            continue
        try:
            if name in LIBRARIES:
                found.append(_by_library(name))
                continue
            if name == IDENTITY:
                found.append(_identity(load_identity()))
                continue
            distance = network(name, obtain(NETWORKS[name], registry, cache, watch))
        except WeightsError as error:
            missing.append(f"{name} is left empty: {error}")
            found.append(Metric(name, "lower", f"{name}: its weights are missing", _nothing))
        else:
            found.append(_by_network(name, distance))
    return found, missing


def _nothing(sample: Sample, frame: Frame) -> float:
    return math.nan


def _identity(distance: Identity) -> Metric:
    return Metric(
        IDENTITY, "lower", "identity: distance of dlib's face descriptors, one person below 0.6; "
        "faces as found in HR, empty without", lambda s, f: distance(s.sr, s.hr),
    )  # fmt: skip


def _by_library(name: str) -> Metric:
    make, better, words = LIBRARIES[name]
    distance = make()

    def measure(sample: Sample, frame: Frame) -> float:
        if min(sample.hr.shape[-2:]) < MIN_SIDE:
            return math.nan
        return distance(sample.sr, sample.hr)

    return Metric(name, better, words, measure)


def _by_network(name: str, distance: Distance) -> Metric:
    def measure(sample: Sample, frame: Frame) -> float:
        if min(sample.hr.shape[-2:]) < MIN_SIDE:
            return math.nan
        return distance(sample.sr, sample.hr)

    words = "DISTS" if name == "dists" else f"LPIPS 0.1, {name.partition('-')[2]}"
    return Metric(name, "lower", f"{words}, whole picture, no resizing", measure)


@lru_cache(maxsize=4)
def network(name: str, path: Path) -> Distance:
    """The network of a metric, kept for the run."""
    return load_dists(path) if name == "dists" else load_lpips(name.partition("-")[2], path)


def definition(metric: Metric, frame: Frame) -> str:
    """What the numbers of a column mean."""
    channel = "Y" if frame.on_luma else "RGB"
    about = packaged_model().about if metric.name == "niqe" else ""
    return metric.definition.format(channel=channel, border=frame.border, niqe=about)


def measure_all(sample: Sample, metrics: Sequence[Metric], frame: Frame) -> dict[str, float | None]:
    """Every metric of one sample; None for what does not apply."""
    sample = Sample(quantise(sample.sr), sample.hr, sample.lr, sample.tile_lines)
    if frame.border * 2 >= min(sample.hr.shape[-2:]):
        raise UsageError(f"border {frame.border} leaves nothing of {tuple(sample.hr.shape[-2:])}")
    values = {metric.name: metric.measure(sample, frame) for metric in metrics}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
