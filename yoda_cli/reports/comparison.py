"""Two pictures laid over each other: one self-contained page, and how much they differ.

Differences are of 8-bit RGB, on the grid of the larger picture; the smaller is enlarged (bicubic).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yoda_cli.errors import UsageError
from yoda_cli.files import Check
from yoda_cli.images import read_picture, shown
from yoda_cli.images.resize import imresize
from yoda_cli.reports.inspection import small
from yoda_cli.reports.page import busiest, data_address, whole_side, write_page

SHAPE_TOLERANCE = 0.02  # by which the sides of two pictures may differ in proportion
SEEN_LEVELS = 8  # a difference that may be seen, of 255


@dataclass(frozen=True)
class Difference:
    """How much two pictures differ, in levels of 255; ``psnr`` in dB, None where they are alike."""

    psnr: float | None
    mean: float
    most: int
    seen_share: float


@dataclass(frozen=True)
class Pair:
    """Two pictures (1, 3, h, w) in [0, 1] as they are, and as bytes on one grid of ``size``."""

    names: tuple[str, str]
    own: tuple[Tensor, Tensor]
    levels: tuple[Tensor, Tensor]
    size: tuple[int, int]  # width, height


def load_pair(first: Path, second: Path) -> Pair:
    """Read both. UsageError where they have different proportions."""
    own = visible(first), visible(second)
    (h1, w1), (h2, w2) = (tuple(picture.shape[-2:]) for picture in own)
    if abs(math.log(w1 * h2 / (h1 * w2))) > SHAPE_TOLERANCE:
        raise UsageError(
            f"{shown(first)} is {w1}×{h1} and {shown(second)} {w2}×{h2}: pictures of different "
            "proportions cannot be laid over each other"
        )
    height, width = max((h1, w1), (h2, w2), key=math.prod)
    levels = [as_levels(picture, height, width) for picture in own]
    names = shown(first).rsplit("/", 1)[-1], shown(second).rsplit("/", 1)[-1]
    if names[0] == names[1]:
        names = shown(first), shown(second)
    return Pair(names, own, (levels[0], levels[1]), (width, height))


def visible(path: Path) -> Tensor:
    """A picture (1, 3, h, w) in [0, 1]; what is transparent lies on white."""
    picture = read_picture(path)
    rgb = picture.rgb.float()
    if picture.alpha is None:
        return rgb
    return rgb * picture.alpha + (1 - picture.alpha)


def as_levels(picture: Tensor, height: int, width: int) -> Tensor:
    """Bytes (1, 3, height, width)."""
    if tuple(picture.shape[-2:]) != (height, width):
        picture = imresize(picture, (height, width))
    return (picture.clamp(0, 1) * 255).round().byte()


def difference(pair: Pair) -> tuple[Difference, Tensor]:
    """The measures, and a map (1, 1, h, w) of the mean difference of the colours, 0 … 255."""
    a, b = (levels.to(torch.int16) for levels in pair.levels)
    apart = (a - b).abs().float()
    error = float((apart**2).mean(dtype=torch.float64))
    psnr = None if error == 0 else 10 * math.log10(255**2 / error)
    seen = float((apart.amax(1) > SEEN_LEVELS).float().mean())
    return Difference(psnr, float(apart.mean()), int(apart.max()), seen), apart.mean(
        1, keepdim=True
    )


def write_comparison(path: Path, check: Check, pair: Pair) -> Difference:
    """Write the page; how much the two differ."""
    found, where = difference(pair)
    write_page(path, check, "compare.html", content_of(pair, found, where))
    return found


def content_of(pair: Pair, found: Difference, where: Tensor) -> dict[str, Any]:
    """Everything the page shows."""
    (first, second), (width, height) = pair.names, pair.size
    side = whole_side(width, height)
    sizes = [f"{own.shape[-1]}×{own.shape[-2]}" for own in pair.own]
    notes = ["Drag over the picture, or use the arrow keys on the slider."]
    if sizes[0] != sizes[1]:
        notes.append("The smaller picture is stretched to the size of the larger one.")
    if side < max(width, height):
        notes.append(f"Both are reduced to {100 * side / max(width, height):.0f} % in this page.")
    return {
        "title": f"{first} and {second}",
        "subtitle": f"{sizes[0]} and {sizes[1]} pixels",
        "left": first,
        "right": second,
        "shown": " ".join(notes),
        "width": width,
        "height": height,
        "spot": busiest(where, width, height),
        "panels": [
            {"name": first, "image": "before"},
            {"name": second, "image": "after"},
            {"name": "difference, four times as strong", "of": ["before", "after"]},
        ],
        "images": {
            name: data_address(small(own, min(side, max(own.shape[-2:]))), lossless=True)
            for name, own in zip(("before", "after"), pair.own, strict=True)
        },
        "facts": [
            ("PSNR", "endless: all pixels are alike" if found.psnr is None else
             f"{found.psnr:.2f} dB"),
            ("mean difference", f"{found.mean:.2f} of 255"),
            ("largest difference", f"{found.most} of 255"),
            (f"pixels that differ by more than {SEEN_LEVELS}", f"{100 * found.seen_share:.1f} %"),
        ],
    }  # fmt: skip
