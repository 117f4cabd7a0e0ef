"""Attention maps of files: computed as a run would, described in numbers, written as pictures.

Makes no network call of the diffusion; ``learned`` runs the checkpoint's encoder.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.attention import LEARNED, SOURCES
from yoda_cli.attention.heads import AVG, MAX, aggregate
from yoda_cli.attention.sources import find_source
from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import UsageError
from yoda_cli.files import make_folder
from yoda_cli.files.overwriting import Outputs
from yoda_cli.files.paths import is_folder
from yoda_cli.images import (
    Picture,
    encode_picture,
    fill_transparent,
    made_by_yoda,
    read_picture,
    shown,
    write_atomically,
)
from yoda_cli.models.model import Model
from yoda_cli.reports.inspection import StepRow, entropy, small, steps_of
from yoda_cli.reports.visualize import overlay, sheet, viridis, with_legend
from yoda_cli.upscaling.batch.outputs import fitting
from yoda_cli.upscaling.conditioning import learned_map
from yoda_cli.upscaling.picture import source_notices
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.pipeline import plan_picture
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.settings import Settings

OVERLAY_SIDE = 640  # smaller pictures are enlarged to this, so that colours and legend can be read
PANEL_SIDE = 256
MAP_FORMATS = ("png", "png16", "npy")


@dataclass(frozen=True)
class MapOptions:
    """What is written; ``map_format`` empty for no map, ``mask_steps`` are values of t."""

    map_format: str = ""
    overlay: bool = False
    grid: bool = False
    mask_steps: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names())

    def names(self) -> list[str]:
        """The end of every file's name that will be written."""
        suffix = "npy" if self.map_format == "npy" else "png"
        names = [f"attention.{suffix}"] if self.map_format else []
        names += ["overlay.png"] if self.overlay else []
        names += ["grid.png"] if self.grid else []
        return names + [f"mask_t{t:04d}.png" for t in self.mask_steps]


@dataclass(frozen=True)
class Looked:
    """One picture's attention in numbers, ``least`` and ``largest`` its values' bounds;
    ``entropy_bits`` is that of its 256-level histogram."""

    source: Path
    attention: str
    size: tuple[int, int]
    mean: float
    least: float
    largest: float
    entropy_bits: float
    steps: list[StepRow]
    planned_calls: int
    dense_calls: int
    written: list[Path]
    notices: tuple[str, ...]


@torch.inference_mode()
def look(
    source: Path, output: Path | None, model: Model, options: UpscaleOptions,
    wanted: MapOptions, outputs: Outputs,
) -> Looked:  # fmt: skip
    """Compute one picture's map and write what is wanted, beside it, into the folder ``output``, or
    to the file of that name."""
    targets = {name: path_for(source, output, name) for name in wanted.names()}
    checks = {
        name: outputs.claim(target, shown(source), made_by_yoda)
        for name, target in targets.items()
    }  # fmt: skip
    picture = read_picture(source)
    alpha = picture.alpha
    lr = picture.rgb if alpha is None else fill_transparent(picture.rgb, alpha)
    settings = resolve(options, model)
    seen = plan_picture(lr, model, settings)
    check_steps(wanted.mask_steps, seen)
    for name, data in pictures(seen, model, settings, wanted):
        write_atomically(targets[name], data, checks[name])
    height, width = lr.shape[-2:]
    return Looked(
        source, settings.mask.source, (width, height), float(seen.attention.mean()),
        float(seen.attention.min()), float(seen.attention.max()), entropy(seen.attention),
        steps_of(seen), seen.planned_calls, seen.dense_calls,
        list(targets.values()),
        picture.notices + source_notices(lr, model, settings),
    )  # fmt: skip


def is_file_name(output: Path | None) -> bool:
    """Whether an output names one file, not a folder."""
    return (
        output is not None and output.suffix.lower() in (".png", ".npy") and not is_folder(output)
    )


def path_for(source: Path, output: Path | None, name: str) -> Path:
    """Where a file about ``source`` goes; makes the folder."""
    if output is not None and is_file_name(output):
        return output
    folder = source.parent if output is None else output
    make_folder(folder)
    return folder / fitting(source.stem, f"_{name}")


def check_steps(steps: tuple[int, ...], seen: PicturePlan) -> None:
    """Refuse a t that the chain does not have."""
    total = seen.first.timesteps[0]
    for t in steps:
        if not 1 <= t <= total:
            raise UsageError(f"step t = {t} is not allowed; this model has 1 … {total}")


def pictures(
    seen: PicturePlan, model: Model, settings: Settings, wanted: MapOptions
) -> list[tuple[str, bytes]]:
    """(name, bytes) of every file that is wanted."""
    mark = {"software": "yoda", "settings": str(dict(settings.rows()))}
    attention = seen.attention.cpu()
    found = []
    if wanted.map_format == "npy":
        out = io.BytesIO()
        np.save(out, attention[0, 0].numpy())
        found.append(("attention.npy", out.getvalue()))
    elif wanted.map_format:
        bits = 16 if wanted.map_format == "png16" else 8
        found.append(("attention.png", grey_png(attention, bits, mark)))
    if wanted.overlay:
        found.append(("overlay.png", png(overlay_of(seen.lr, attention), mark)))
    if wanted.grid:
        found.append(("grid.png", png(grid_of(seen, model, settings), mark)))
    for t in wanted.mask_steps:
        found.append((f"mask_t{t:04d}.png", grey_png(seen.mask(t).float().cpu(), 8, mark)))
    return found


def grey_png(values: Tensor, bits: int, mark: dict[str, str]) -> bytes:
    """(1, 1, h, w) in [0, 1] as a grey PNG."""
    picture = Picture(values.expand(1, 3, -1, -1), is_grey=True, bits=bits)
    return encode_picture(picture, kind="PNG", provenance=mark)


def png(pixels: Tensor, mark: dict[str, str]) -> bytes:
    """(3, h, w) uint8 as a colour PNG."""
    return encode_picture(Picture(pixels[None].float() / 255), kind="PNG", provenance=mark)


def resize_to_side(values: Tensor, side: int) -> Tensor:
    """(1, C, h, w) enlarged or reduced so that its longer side is ``side``."""
    factor = side / max(values.shape[-2:])
    size = [max(1, round(n * factor)) for n in values.shape[-2:]]
    return F.interpolate(values, size, mode="bilinear", antialias=factor < 1)


def overlay_of(lr: Tensor, attention: Tensor) -> Tensor:
    """The map over the picture, with its legend."""
    side = max(OVERLAY_SIDE, *lr.shape[-2:])
    picture = small(resize_to_side(lr.cpu(), side), side)
    return with_legend(overlay(picture, resize_to_side(attention, side)))


def grid_of(seen: PicturePlan, model: Model, settings: Settings) -> Tensor:
    """All heads and aggregations of the source, or all sources where it has no heads."""
    lr = seen.lr.cpu()
    name, heads_asked = settings.mask.source, settings.mask.heads or None
    panels = [("picture", small(resize_to_side(lr, PANEL_SIDE), PANEL_SIDE))]
    heads = None if name == LEARNED else find_source(name, heads_asked, model.device).heads
    maps: dict[str, Tensor] = {}
    if heads is not None:
        values = heads(lr)
        maps = {f"head {i}": values[:, i : i + 1] for i in range(values.shape[1])}
        maps |= {AVG: aggregate(values, AVG), MAX: aggregate(values, MAX)}
    else:
        if (learned := learned_map(lr, model, settings)) is not None:
            maps[LEARNED] = learned[..., : lr.shape[-2], : lr.shape[-1]].float().cpu()
        maps |= {other: source(lr) for other, source in SOURCES.items()}
        if name not in maps:
            maps[Path(name).name] = seen.attention.cpu()
    panels += [
        (label, viridis(resize_to_side(values, PANEL_SIDE))) for label, values in maps.items()
    ]
    return sheet(panels, math.ceil(math.sqrt(len(panels))))
