"""The few ratios that a speed record comes down to, each of two things measured in one run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yoda_cli.evaluation.ncnn_methods import BY_NCNN
from yoda_cli.evaluation.processes import NCNN, TORCH

OWN = ("yoda", "base", *BY_NCNN)  # methods of ours, and any other is a peer
NO_TORCH = ("a path that is not there", NCNN, "yoda upscale", "yoda upscale, base alone")


def figures_of(record: Mapping[str, Any], side: int) -> list[dict[str, Any]]:
    """``what``, ``over`` and ``ratio``; in one process those of a picture of ``side`` pixels."""
    rows = [*of_processes(record["processes"]), *of_methods(record["timings"], side)]
    rows += [
        (rate["what"] + "'s operations a second", "matrix product", rate["ratio"])
        for rate in record["arithmetic"][1:]
    ]
    rows += [(one["what"] + ": speed", one["over"], one["ratio"]) for one in record["gains"]]
    return [dict(zip(("what", "over", "ratio"), row, strict=True)) for row in rows]


def of_processes(timings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """Processor seconds and memory of whole processes, over those of importing torch."""
    known = {one["command"]: one for one in timings}
    for name in NO_TORCH:
        if one := known.get(name):
            yield f"{name}: processor", TORCH, one["ratio"]
    for name in NO_TORCH[1:3]:
        base = known.get(TORCH, {}).get("peak_mb")
        if name in known and base:
            yield f"{name}: memory", TORCH, known[name]["peak_mb"] / base


def of_methods(timings: Sequence[Mapping[str, Any]], side: int) -> Iterator[tuple[str, str, float]]:
    """Median seconds of ours over each peer's: at ``side``, or the largest size below it that a
    slow peer was measured at."""
    medians = {(one["method"], one["width"]): one["median"] for one in timings}
    widths = {name: width for name, width in sorted(medians) if width <= side}  # the largest
    peers = [name for name in widths if name not in (*OWN, "plain", "bicubic", "lanczos")]
    for own, peer in itertools.product(OWN, peers):
        width = widths[peer]
        if (own, width) in medians:
            ratio = medians[own, width] / medians[peer, width]
            yield f"{own}, in one process, {width}×{width}", peer, ratio
