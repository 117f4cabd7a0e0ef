"""What a run that decided on its way did, region by region: a map of steps, curves of gains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from yoda_cli.tiling.overlap import gaussian_weights
from yoda_cli.tiling.windows import Window
from yoda_cli.upscaling.adaptive import RegionRun

SIDE = 200  # of the map's longer side, cells at most


def steps_map(regions: Sequence[RegionRun], chain: int) -> Tensor:
    """(1, 1, h, w) in [0, 1]: the share of the chain's steps that the regions took, blended where
    they overlap as their pictures are."""
    height = max(region.window.bottom for region in regions)
    width = max(region.window.right for region in regions)
    factor = max(1, -(-max(height, width) // SIDE))
    total = torch.zeros(1, 1, -(-height // factor), -(-width // factor))
    weights = torch.zeros_like(total)
    for region in regions:
        window = coarser(region.window, factor)
        weight = gaussian_weights(window.height, window.width).float() + 1e-6
        window.cut(total).add_(weight * (len(region.times) / chain))
        window.cut(weights).add_(weight)
    return total / weights.clamp(min=1e-12)


def coarser(window: Window, factor: int) -> Window:
    """The cells of ``factor`` pixels that a window touches."""
    return Window(
        window.top // factor, window.left // factor,
        -(-window.bottom // factor), -(-window.right // factor),
    )  # fmt: skip


def curves(regions: Sequence[RegionRun]) -> list[dict[str, Any]]:
    """The gains of three regions: of the fewest, the middle and the most steps."""
    ordered = sorted(range(len(regions)), key=lambda i: (len(regions[i].times), i))
    picked = dict.fromkeys((ordered[0], ordered[len(ordered) // 2], ordered[-1]))
    return [
        {
            "name": f"region {i + 1}: {len(regions[i].times)} steps"
            + (", left early" if regions[i].left else ""),
            "times": list(regions[i].judged),
            "fidelity": [gains.fidelity for gains in regions[i].gains],
            "realism": [gains.realism for gains in regions[i].gains],
            "trends": list(regions[i].trends),
        }
        for i in picked
    ]


def said(regions: Sequence[RegionRun], chain: int) -> str:
    """The same in a sentence."""
    steps = [len(region.times) for region in regions]
    left = sum(region.left for region in regions)
    count = "1 region" if len(steps) == 1 else f"{len(steps)} regions"
    span = f"{min(steps)} to {max(steps)}" if min(steps) < max(steps) else f"{min(steps)}"
    return (
        f"{count}, {span} of {chain} steps, {sum(steps) / len(steps):.1f} on "
        f"average; {left} left before the end. Yellow took every step, blue nearly none."
    )
