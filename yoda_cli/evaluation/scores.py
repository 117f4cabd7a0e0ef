"""The metrics of a benchmark: name → number, better direction, and the definition in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.evaluation.metrics import (
    colour_error,
    detail_ratio,
    grid,
    libraries,
    lr_consistency,
    psnr,
    quantise,
    seam,
    ssim,
    texture_distance,
    weave,
)
from yoda_cli.evaluation.metrics.identity import Identity, load_identity
from yoda_cli.evaluation.metrics.niqe import niqe, packaged_model
from yoda_cli.evaluation.metrics.perceptual import MIN_SIDE, Distance, load_dists, load_lpips
from yoda_cli.weights import Cache, Registry, Watch, obtain

#: Metrics with networks: the registry's file of each one's backbone.
NETWORKS = {
    "lpips-alex": "alexnet-owt-7be5be79.pth",
    "lpips-vgg": "vgg16-397923af.pth",
    "lpips-squeeze": "squeezenet1_1-b8a52dc0.pth",
    "dists": "vgg16-397923af.pth",
}


@dataclass(frozen=True)
class Frame:
    """How numbers are taken: ``on_luma`` or RGB, ``border`` pixels cropped on each side."""

    on_luma: bool
    border: int


@dataclass(frozen=True)
class Sample:
    """One result at 8 bits, its truth, its input, and where its tiles met."""

    sr: Tensor
    hr: Tensor
    lr: Tensor
    tile_lines: tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class Metric:
    """``measure`` one sample; ``better`` is "higher", "lower", "one" or "zero"."""

    name: str
    better: str
    definition: str
    measure: Callable[[Sample, Frame], float]


PLAIN = {
    metric.name: metric
    for metric in (
        Metric("psnr", "higher", "PSNR in dB on {channel}, {border}-pixel border, 8 bits",
               lambda s, f: psnr(s.sr, s.hr, border=f.border, on_luma=f.on_luma)),
        Metric("ssim", "higher", "SSIM on {channel}, {border}-pixel border, window 11, sigma 1.5",
               lambda s, f: ssim(s.sr, s.hr, border=f.border, on_luma=f.on_luma)),
        Metric("texture", "lower", "texture distance: local sliced Wasserstein distance of the "
               "high band's 5x5 patches on Y, {border}-pixel border",
               lambda s, f: texture_distance(s.sr, s.hr, border=f.border)),
        Metric("detail", "one", "detail ratio: RMS of Y's high band (sigma 1.5) over HR's",
               lambda s, f: detail_ratio(s.sr, s.hr, border=f.border)),
        Metric("colour", "lower", "largest difference of the channel means, in 1/255",
               lambda s, f: colour_error(s.sr, s.hr)),
        Metric("lr-psnr", "higher", "LR consistency: PSNR in dB on RGB of the bicubic-reduced "
               "result against LR", lambda s, f: lr_consistency(s.sr, s.lr)),
        Metric("niqe", "lower", "NIQE (own fit: {niqe})", lambda s, f: niqe(s.sr)),
        Metric("seam", "zero", "gradient of Y across tile lines over that elsewhere, minus 1; "
               "empty without tiles", lambda s, f: seam(s.sr, *s.tile_lines)),
        Metric("grid", "zero", "amplitude of Y's high band by position modulo 2, 4 and 8: largest "
               "over smallest, minus 1", lambda s, f: grid(s.sr)),
        Metric("weave", "one", "highest peak of Y's high band's spectrum in HR's flattest tenth "
               "over the median around it", lambda s, f: weave(s.sr, s.hr)),
    )
}  # fmt: skip

#: Metrics that libraries compute: how to get one, its better direction, and its definition.
LIBRARIES = {
    "gmsd": (libraries.gmsd, "lower", "GMSD on RGB (piq)"),
    "jod": (libraries.jod, "higher", "JOD of ColorVideoVDP on a 4K display, 10 at best (cvvdp)"),
}

IDENTITY = "identity"
NAMES = (*PLAIN, *LIBRARIES, *NETWORKS, IDENTITY)
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
