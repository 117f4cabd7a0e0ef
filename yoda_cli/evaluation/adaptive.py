"""The ablation of ``--adaptive``: the whole curve, beside its real rival, the short uniform chain.

Regions are judged by plain measures, by the model's regressor if it has one, and by an oracle that
knows the truth: the ceiling. Nothing is watched while it runs, so that seconds compare.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.evaluation.methods import Method, Outcome, flops_per_pixel
from yoda_cli.evaluation.metrics.gain import Oracle
from yoda_cli.models.gain import JudgeOf
from yoda_cli.models.model import Model
from yoda_cli.models.regressors import with_judge
from yoda_cli.upscaling.adaptive import RegionRun, measured
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve

CHAIN = 50  # steps where none are asked for
SHORTER = (25, 15, 8, 4, 2, 1)
TAUS = (0.005, 0.02, 0.04)
SAME_PSNR, SAME_TEXTURE = 0.02, 0.005  # up to which two methods are taken for equal


def adaptive_ablation(options: UpscaleOptions, model: Model) -> list[Method]:
    """The full chain, shorter uniform ones, and adaptive runs of the full one."""
    full = options.steps or CHAIN
    chains = [full, *(steps for steps in SHORTER if steps < full)]
    methods = [
        Method(f"uniform {steps}", partial(run_plainly, model=model, options=asked))
        for steps in chains
        for asked in [replace(options, steps=steps)]
    ]
    judged = with_judge(model, options)
    judges: dict[str, Model] = {"measured": replace(model, judge_of=measured)}
    if judged.judge_of is not None:
        judges["regressor"] = judged
    for tau in TAUS:
        asked = replace(options, steps=full, adaptive=True, tau=tau)
        for name, own in judges.items():
            run = partial(run_plainly, model=own, options=asked, counted=model)
            methods.append(Method(f"{name} {tau:g}", run))
        knowing = partial(run_knowing, model=model, options=asked)
        methods.append(Method(f"oracle {tau:g}", run_blind, knowing=knowing))
    return methods


def run_plainly(
    lr: Tensor, model: Model, options: UpscaleOptions, counted: Model | None = None
) -> Outcome:
    """One picture, unwatched; arithmetic is counted on ``counted``."""
    settings = resolve(options, model)
    result = upscale_tensor(lr, model, settings)
    flops = None
    if model.family is None:
        encoder, network = flops_per_pixel(
            counted or model, restored=settings.sampling.strength > model.backbone.restores_from
        )
        flops = encoder * result.canvas_pixels + network * result.network_pixels
    return Outcome(
        result.image, result.calls, result.planned_calls, result.dense_calls,
        tile_lines=lines_between(result.regions, model.scale if model.family is not None else 1),
        flops=flops,
    )  # fmt: skip


def run_knowing(lr: Tensor, hr: Tensor, model: Model, options: UpscaleOptions) -> Outcome:
    """The same, judged by the truth."""
    judge_of: JudgeOf = partial(Oracle, hr)
    return run_plainly(lr, replace(model, judge_of=judge_of), options, counted=model)


def run_blind(lr: Tensor) -> Outcome:
    """What an oracle does without a truth."""
    raise ValueError("an oracle needs the truth")


def lines_between(
    regions: Sequence[RegionRun], factor: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows and columns in the middle of where neighbouring regions overlap."""

    def lines(spans: set[tuple[int, int]]) -> tuple[int, ...]:
        ordered = sorted(spans)
        pairs = itertools.pairwise(ordered)
        return tuple((end + start) // 2 * factor for (_, end), (start, _) in pairs)

    rows = lines({(region.window.top, region.window.bottom) for region in regions})
    return rows, lines({(region.window.left, region.window.right) for region in regions})


def rival_lines(document: Mapping[str, Any]) -> list[str]:
    """For every adaptive run of an ablation: what it saves against the full chain, and what the
    best uniform chain of no more arithmetic reaches."""
    lines = []
    for dataset in dict.fromkeys(line["dataset"] for line in document["summary"]):
        mine = [line for line in document["summary"] if line["dataset"] == dataset]
        uniform = [line for line in mine if line["method"].startswith("uniform ")]
        if not uniform or any(line.get("gflop") is None for line in mine):
            continue
        for line in mine:
            if line["method"].split()[0] in ("measured", "regressor", "oracle"):
                lines.append(f"{dataset}, {line['method']}: {compared(line, uniform)}")
    return lines


def compared(line: Mapping[str, Any], uniform: Sequence[Mapping[str, Any]]) -> str:
    """One adaptive run against uniform chains, the longest first."""
    full = uniform[0]
    text = (
        f"{full['gflop'] / line['gflop']:.2f} times less arithmetic and "
        f"{full['seconds'] / line['seconds']:.2f} times less time than {full['method']}, "
        f"{'equal to' if as_good(line, full) else 'not as good as'} it"
    )
    cheaper = [one for one in uniform if one["gflop"] <= line["gflop"]]
    if not cheaper:
        return f"{text}; no uniform chain takes as little"
    good = [one for one in cheaper if as_good(one, line)]
    if good:
        best = min(good, key=lambda one: float(one["gflop"]))
        return f"{text}; {best['method']} is as good at {best['gflop'] / line['gflop']:.2f} of it"
    return f"{text}; no uniform chain of its cost is as good"


def as_good(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether ``one`` is not behind ``other`` in PSNR and texture, of those that were measured."""
    psnr = [line.get("psnr") for line in (one, other)]
    texture = [line.get("texture") for line in (one, other)]
    behind = psnr[0] is not None and psnr[1] is not None and psnr[0] < psnr[1] - SAME_PSNR
    rougher = (
        texture[0] is not None and texture[1] is not None
        and texture[0] > texture[1] + SAME_TEXTURE
    )  # fmt: skip
    return not behind and not rougher
