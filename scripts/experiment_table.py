"""The README's table from the lines that `scripts/experiment.py` printed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

from yoda_cli.evaluation.metrics.gain import DB_PER_TEXTURE

Row = dict[str, Any]
SLOPE = DB_PER_TEXTURE
NEAR = 0.15  # farther away the slope says nothing
SHOWN = "ddim 15, l 0.1"
FOLLOWED = "learned"


def as_table(lines: Iterable[str]) -> str:
    """All methods at one sampling, then one method at all samplings."""
    rows = [json.loads(line) for line in lines]
    plain = pick(rows, "plain", SHOWN)
    level = fmean(row["texture"] for row in plain)
    parts = [
        table(rows, "method", [(method, SHOWN) for method in unique(rows, "method")], level),
        "",
    ]
    pairs = [(FOLLOWED, sampling) for sampling in unique(rows, "sampling")]
    parts += [table(rows, "sampling", pairs, level)]
    return "\n".join(parts)


def unique(rows: Sequence[Row], key: str) -> list[str]:
    """Values in the order they came."""
    return list(dict.fromkeys(row[key] for row in rows))


def pick(rows: Sequence[Row], method: str, sampling: str) -> list[Row]:
    """One row a seed; of several the last."""
    found = {r["seed"]: r for r in rows if r["method"] == method and r["sampling"] == sampling}
    return list(found.values())


def table(rows: Sequence[Row], key: str, pairs: Sequence[tuple[str, str]], level: float) -> str:
    """Means over seeds, and the spread of the two that matter most."""
    lines = [
        f"| {key} | seeds | psnr | ssim | texture | psnr at plain's texture | colour | refined |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, sampling in pairs:
        found = pick(rows, method, sampling)
        mean = {name: fmean(r[name] for r in found) for name in found[0] if name not in KEYS}
        matched = [r["psnr"] + SLOPE * (level - r["texture"]) for r in found]
        near = abs(mean["texture"] - level) <= NEAR
        moved = f"{fmean(matched):.2f}{spread(matched, 2)}" if near else "–"
        lines.append(
            f"| {method if key == 'method' else sampling} | {len(found)} "
            f"| {mean['psnr']:.2f}{spread([r['psnr'] for r in found], 2)} | {mean['ssim']:.3f} "
            f"| {mean['texture']:.3f}{spread([r['texture'] for r in found], 3)} "
            f"| {moved} | {mean['colour']:.2f} "
            f"| {mean['refined']:.1f} of {mean['calls']:.0f} |"
        )
    return "\n".join(lines)


KEYS = ("method", "seed", "sampling")


def spread(values: Sequence[float], digits: int) -> str:
    """± the standard deviation over seeds, where there are several."""
    return f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
