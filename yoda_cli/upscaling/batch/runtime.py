"""Which library runs the network: torch, or ncnn where a run can do without torch.

ncnn is about twice as fast in fp32 on a CPU, and torch takes longer to load than a small picture
takes to be made. Reads names and headers, and the pixels of one small picture at most.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.device import may_have_bf16_units, may_have_gpu
from yoda_cli.devices.graphs import RUNTIME, has_runtime
from yoda_cli.errors import InputError, NotFoundError, UsageError, WeightsError, need
from yoda_cli.images import peek, read_picture
from yoda_cli.images.degradation import estimate
from yoda_cli.models.ncnn_network import can_restore, has_graphs
from yoda_cli.models.restoring import FROM
from yoda_cli.upscaling.batch.inputs import STREAM, Found
from yoda_cli.upscaling.checks import scale_for

AUTO, TORCH, NCNN = RUNTIMES = ("auto", "torch", "ncnn")
MAPS = (None, "learned", "uniform", "gaussian", "edge", "sift")
#: Options that the loop over NumPy's arrays hears. Any other that is set asks for torch.
HEARD = {
    "scale", "width", "height", "short_side", "min_size", "model", "attention", "lower_bound",
    "steps", "sampler", "seed", "fidelity", "denoise", "device", "precision", "tile",
    "tile_overlap", "block", "batch", "faithful", "skip", "stream", "budget", "max_pixels",
    "accept_damaged",
}  # fmt: skip
#: Pixels of a result, from which on torch is done first where it may compute in bf16.
LARGEST_BY_BF16 = 1 << 20
#: The same of a damaged picture, which is restored.
LARGEST_RESTORED = 3 << 16


def pick_runtime(
    asked: str, options: UpscaleOptions, found: Sequence[Found], stream: bytes | None, *,
    is_watched: bool, is_local: bool,
) -> tuple[str, str]:  # fmt: skip
    """``TORCH`` or ``NCNN``: as asked, or the one that is done first; and why it is not ``NCNN``.

    ``is_watched``: a dump or a report is wanted; ``is_local``: this machine does the work.
    WeightsError where ncnn was asked for and is missing, or cannot do it.
    """
    if asked not in RUNTIMES:
        raise UsageError(f"unknown runtime {asked!r}; use {', '.join(RUNTIMES)}")
    if asked == TORCH:
        return TORCH, "it was asked for"
    reason = why_not(options, is_watched=is_watched, is_local=is_local)
    if asked == NCNN:
        need(RUNTIME, "")
        if reason:
            raise WeightsError(f"--runtime ncnn does not do {reason}; leave it out")
        return NCNN, ""
    reason = reason or why_slower(options, found, stream)
    return (TORCH, reason) if reason else (NCNN, "")


def why_not(options: UpscaleOptions, *, is_watched: bool, is_local: bool) -> str:
    """What of a run needs torch; "" if nothing does."""
    if not has_graphs(options):
        return f"the model {options.model}"
    if is_watched:
        return "--dump and --report"
    if not is_local:
        return "--engine ray"
    default = UpscaleOptions()
    for one in fields(options):
        if one.name not in HEARD and getattr(options, one.name) != getattr(default, one.name):
            return f"--{one.name.replace('_', '-')}"
    values = {
        "device": ("auto", "cpu"), "precision": ("auto", "fp32"), "attention": MAPS,
        "stream": (None, False),
    }  # fmt: skip
    for name, allowed in values.items():
        if (value := getattr(options, name)) not in allowed:
            return f"--{name}" if value is True else f"--{name} {value}"
    return ""


def why_slower(options: UpscaleOptions, found: Sequence[Found], stream: bytes | None) -> str:
    """Why torch had better run what ncnn could; "" if it had not."""
    if not has_runtime():
        return f"{RUNTIME} is not installed"
    if "torch" in sys.modules:
        return "it is loaded already"
    if options.device == "auto" and may_have_gpu():
        return "there may be a GPU"
    if options.precision != "auto" or not may_have_bf16_units():
        return ""
    if len(found) > 1:
        return "torch may compute in bf16"
    try:
        source = found[0].path if found[0].path != STREAM else stream or b""
        header = peek(source)
        scale = scale_for(options, header.width, header.height, 4) or 4.0
        pixels = header.width * header.height * max(scale, 1.0) ** 2
        if pixels > LARGEST_BY_BF16:
            return f"the result has more than {LARGEST_BY_BF16:,} pixels"
        if pixels > LARGEST_RESTORED and is_restored(source, options):
            return f"a damaged picture's result has more than {LARGEST_RESTORED:,} pixels"
    except (InputError, NotFoundError, UsageError):
        pass  # said later, where it belongs
    return ""


def is_restored(source: Path | bytes, options: UpscaleOptions) -> bool:
    """Whether the network that ``options`` name restores this picture."""
    if not can_restore(options):
        return False
    strength = options.denoise
    if strength is None:
        picture = read_picture(source, accept_damaged=options.accept_damaged, plain=True)
        strength = estimate(picture.rgb)
    return strength > FROM
