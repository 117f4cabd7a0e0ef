"""Files in, files out: where each result goes, and one picture from disk to disk.

Every refusal that can be known beforehand comes before any work; a result is written beside its
final name and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from yoda_cli import __version__
from yoda_cli.attention import LEARNED
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.degradation import estimate
from yoda_cli.errors import NotFoundError, OutputError, UsageError
from yoda_cli.images import (
    Picture,
    check_format_size,
    fill_transparent,
    format_of,
    losses,
    made_by_yoda,
    output_format_for,
    read_picture,
    shown,
    sweep_temporaries,
    write_picture,
)
from yoda_cli.models import Model
from yoda_cli.passes import Observer
from yoda_cli.pipeline import Result, upscale_tensor
from yoda_cli.reproduction import settings_of
from yoda_cli.resampling import imresize
from yoda_cli.sources import find_source


@dataclass(frozen=True)
class Finished:
    """One picture that was written; ``options`` as they were in the end, ``denoise`` settled."""

    source: Path
    target: Path
    lr: Tensor
    result: Result
    size: tuple[int, int]
    notices: tuple[str, ...]
    options: UpscaleOptions


def check_inputs(inputs: Sequence[Path], output: Path | None) -> None:
    """Refuse a list of inputs that cannot work before a model is loaded."""
    for path in inputs:
        if path.is_dir():
            raise UsageError(f"{shown(path)} is a folder; give pictures")
        if not path.exists():
            raise NotFoundError(f"no such file: {shown(path)}")
    if output is not None and len(inputs) > 1 and not output.is_dir():
        raise UsageError(
            f"{len(inputs)} inputs need a folder as output, and {shown(output)} is none"
        )


def upscale_file(
    source: Path,
    output: Path | None,
    model: Model,
    options: UpscaleOptions,
    writing: WriteOptions,
    observer: Observer,
    taken: set[Path],
) -> Finished:
    """Read ``source``, enlarge it, write the result; refuses before any work where it can.

    ``taken`` are the outputs that this run has written; the new one is added.
    """
    picture = read_picture(source)
    scale = options.scale if options.scale is not None else float(model.backbone.scale)
    target, kind = target_of(source, output, picture, model, scale)
    width, height = (max(1, round(n * scale)) for n in reversed(picture.rgb.shape[-2:]))
    check_format_size(kind, width, height)
    check_target(source, target, writing, taken)
    sweep_temporaries(target.parent)
    alpha = picture.alpha
    rgb = picture.rgb if alpha is None else fill_transparent(picture.rgb, alpha)
    options, said = settle_denoise(picture, rgb, model, options)
    result = upscale_tensor(rgb, model, options, observer)
    large_alpha = None
    if alpha is not None:
        large_alpha = imresize(alpha, (height, width)).clamp(0, 1)
    enlarged = replace(picture, rgb=result.image, alpha=large_alpha)
    write_picture(
        target,
        enlarged,
        kind=kind,
        quality=writing.quality,
        strip_metadata=writing.strip_metadata,
        provenance=provenance(model, options, scale),
    )
    taken.add(target.resolve())
    notices = picture.notices + losses(picture, kind) + source_notices(rgb, model, options)
    return Finished(source, target, rgb, result, (width, height), notices + said, options)


def settle_denoise(
    picture: Picture, rgb: Tensor, model: Model, options: UpscaleOptions
) -> tuple[UpscaleOptions, tuple[str, ...]]:
    """``options`` with a number for ``denoise``, and a notice where it was estimated."""
    if options.denoise is not None:
        if options.denoise > 0 and not model.can_denoise:
            raise UsageError(
                f"model {model.name} was trained on clean pictures only; leave --denoise at 0"
            )
        return options, ()
    if not model.can_denoise:
        return replace(options, denoise=0.0), ()
    found = estimate(rgb, picture.jpeg_table or None)
    notice = (f"denoise {found.strength:g} ({found.why})",) if found.why else ()
    return replace(options, denoise=found.strength), notice


def source_notices(lr: Tensor, model: Model, options: UpscaleOptions) -> tuple[str, ...]:
    """What the attention source has to say about this picture."""
    name = options.attention or model.defaults.attention
    if name == LEARNED:
        return ()
    notice = find_source(name, options.heads, model.device).notice(lr)
    return (notice,) if notice else ()


def target_of(
    source: Path, output: Path | None, picture: Picture, model: Model, scale: float
) -> tuple[Path, str]:
    """Where the result goes and its file format.

    Without ``output``: beside the input, ``{stem}_{model}_x{scale}``, in the input's format, or
    PNG where that cannot hold the picture.
    """
    if output is not None and not output.is_dir():
        return output, format_of(output)
    kind, suffix = output_format_for(picture, source.suffix)
    folder = output if output is not None else source.parent
    return folder / f"{source.stem}_{model.name}_x{scale:g}{suffix}", kind


def check_target(source: Path, target: Path, writing: WriteOptions, taken: set[Path]) -> None:
    """Refuse a target that is the input, stands in no folder, is somebody else's file, or was
    already written in this run."""
    if target.resolve() in taken:
        raise OutputError(
            f"{shown(target)} was just written for another input; choose a folder each"
        )
    if not target.parent.is_dir():
        raise OutputError(f"no such folder: {shown(target.parent)}")
    if not target.exists():
        return
    if target.samefile(source):
        raise OutputError(f"{shown(target)} is the input itself; choose another output")
    if target.is_dir():
        raise OutputError(f"{shown(target)} is a folder")
    if not writing.overwrite and not made_by_yoda(target):
        raise OutputError(
            f"{shown(target)} exists and yoda did not make it; use --overwrite to replace it"
        )


def provenance(model: Model, options: UpscaleOptions, scale: float) -> dict[str, str]:
    """What the file says of how it was made."""
    left_out = ("model", "seed", "device", "tile")  # said elsewhere, or of no effect
    settings = {k: v for k, v in settings_of(model, options) if k not in left_out}
    settings |= {"scale": scale, "faithful": options.faithful, "torch": torch.__version__}
    return {
        "software": f"yoda {__version__}",
        "model": model.name,
        "seed": str(options.seed),
        "settings": json.dumps(settings, sort_keys=True),
    }
