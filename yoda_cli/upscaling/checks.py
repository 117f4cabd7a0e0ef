"""Which values of the options can be meant; asked before anything is loaded, torch included.

The tasks here repeat the keys of a table that needs torch; a test compares them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from yoda_cli.config import MIN_TILE, UpscaleOptions
from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.errors import UsageError
from yoda_cli.files import one_line

if TYPE_CHECKING:
    from yoda_cli.models.model import Model

TASK_NAMES = ("sr", "face", "denoise")
MAX_SCALE = 16.0
MAX_CFG = 30  # of classifier-free guidance: far beyond what anybody uses, to catch a slip
LENGTHS = {"width": "w", "height": "h", "short_side": "s", "min_size": "m"}
HUGE = 1 << 62  # beyond any picture, and still a number that floats have room for
#: Output pixels. Blocks of 256 work on 1.5 times a picture's pixels, of 128 on 2.2 times, and come
#: 4 dB less near to the picture in one piece: `scripts/measure_constants.py MIN_BLOCK`.
MIN_BLOCK = 256


def check_options(options: UpscaleOptions) -> None:
    """Refuse values that cannot be meant."""
    check_work(options)
    check_adaptive(options)
    check_latent(options)
    check_sizes(options)
    lower = options.lower_bound
    if lower is not None and not (0 < lower <= 1):
        raise UsageError(f"lower bound {lower:g} is not allowed; give a number above 0, at most 1")
    if options.fidelity is not None and not 0 <= options.fidelity <= 1:
        raise UsageError(f"fidelity {options.fidelity:g} is not allowed; give 0 … 1")
    if options.denoise is not None and not 0 <= options.denoise <= 1:
        raise UsageError(f"denoise {options.denoise:g} is not allowed; give auto or 0 … 1")
    if options.steps is not None and options.steps < 1:
        raise UsageError(f"steps {options.steps} is not allowed; give 1 or more")
    if not 0 <= options.seed < 2**63:
        raise UsageError(f"seed {options.seed} is not allowed; give 0 … 2^63-1")
    if options.sampler is not None and options.sampler not in SAMPLERS:
        raise UsageError(f"unknown sampler {options.sampler!r}; use {', '.join(SAMPLERS)}")
    ancestral = [name for name, sampler in SAMPLERS.items() if sampler.is_ancestral]
    if options.faithful and options.sampler not in (None, *ancestral):
        raise UsageError(
            f"--faithful needs the variance of an ancestral step; sampler {options.sampler!r} "
            f"has none: use {' or '.join(ancestral)}"
        )


def check_adaptive(options: UpscaleOptions) -> None:
    """Refuse what leaves a region nothing to decide, or cannot be decided on."""
    for name in ("tau", "leaps", "regressor"):
        if getattr(options, name) is not None and not options.adaptive:
            raise UsageError(f"--{name} is for runs that decide on their way: add --adaptive")
    if not options.adaptive:
        return
    tau, leaps, tile = options.tau, options.leaps, options.tile
    if tau is not None and not 0 < tau < 1:
        raise UsageError(f"tau {tau:g} is not allowed; give a gain above 0, below 1")
    if leaps is not None and not rising(leaps):
        raise UsageError(
            "leaps must be rising thousandths of the chain, above 0 and at most 1000, such as "
            "5,10,15,20"
        )
    if options.steps == 1:
        raise UsageError("--adaptive decides from step to step: give --steps 2 or more")
    if options.faithful:
        raise UsageError(
            "--faithful runs YODA's equations along one chain that is fixed beforehand, and "
            "--adaptive gives every region a chain of its own: leave out one of them"
        )
    if options.block and tile and options.block < tile:
        raise UsageError(
            f"a region of {options.block} pixels is smaller than a tile of {tile}: give --block "
            f"{tile} or more, or a smaller --tile"
        )


def rising(leaps: Sequence[float]) -> bool:
    """Whether these can be leaps: thousandths, each larger than the one before."""
    bounded = all(math.isfinite(leap) and 0 < leap <= 1000 for leap in leaps)
    return bool(leaps) and bounded and all(a < b for a, b in itertools.pairwise(leaps))


def check_latent(options: UpscaleOptions) -> None:
    """Refuse values of what only latent models read."""
    if options.task is not None and options.task not in TASK_NAMES:
        raise UsageError(f"unknown task {options.task!r}; use {', '.join(TASK_NAMES)}")
    if options.attention_from not in (None, "stage1", "lr"):
        raise UsageError(f"attention from {options.attention_from!r}? use stage1 or lr")
    if options.cfg is not None and not (math.isfinite(options.cfg) and 0 <= options.cfg <= MAX_CFG):
        raise UsageError(f"cfg {options.cfg:g} is not allowed; give 0 … {MAX_CFG}")
    if options.strength is not None and not 0 <= options.strength <= 2:
        raise UsageError(f"strength {options.strength:g} is not allowed; give 0 … 2")


#: Options that only a latent model reads.
LATENT_ONLY = (
    "task", "stage1", "attention_from", "prompt", "negative_prompt", "cfg", "strength",
)  # fmt: skip


def check_model(model: Model, options: UpscaleOptions) -> None:
    """Refuse options that this model would not read."""
    if options.refine and options.where is not None:
        raise UsageError("give one of --refine and --where")
    if model.where is not None:
        check_pair(model, model.where, options)
        return
    if model.family is not None and options.block is not None:
        raise UsageError(f"model {model.name} works on one block; leave out --block")
    for name in LATENT_ONLY if model.family is None else model.family.unread:
        if getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise UsageError(f"model {model.name} does not read --{flag}; it is for photo")
    if options.adaptive and model.family is not None and model.family.settings.refinement > 0:
        raise UsageError(
            f"model {model.name} steers every step by the whole picture made so far, and "
            "--adaptive lets its regions stand at different times: leave it out"
        )
    if not model.diffuses:
        check_one_call(model, options)


def check_pair(model: Model, other: Model, options: UpscaleOptions) -> None:
    """Refuse options that neither of two models would read."""
    for one in (model, other):
        check_model(replace(model, where=None) if one is model else one, apart(options, one))
    if not (model.diffuses or other.diffuses):
        check_one_call(model, replace(options, attention=None, heads=None))


def apart(options: UpscaleOptions, model: Model) -> UpscaleOptions:
    """What one of two models is told: no map, which is for both, and nothing of diffusion where it
    does not diffuse."""
    options = replace(options, where=None, attention=None, heads=None)
    if not model.diffuses:
        return replace(
            options, lower_bound=None, steps=None, sampler=None, budget=None, faithful=False,
            denoise=None,
        )  # fmt: skip
    return options if model.knows_damage else replace(options, denoise=0.0)


#: Options that only a network with diffusion reads.
DIFFUSION_ONLY = (
    "attention", "heads", "lower_bound", "steps", "sampler", "budget", "faithful", "denoise",
    "adaptive",
)  # fmt: skip


def check_one_call(model: Model, options: UpscaleOptions) -> None:
    """Refuse what means nothing to a network that makes its picture in one call."""
    for name in DIFFUSION_ONLY:
        if getattr(options, name):
            flag = name.replace("_", "-")
            raise UsageError(f"model {model.name} does not diffuse: it does not read --{flag}")
    scale = options.scale
    if model.scale == 1 and scale is not None and scale > 1:
        raise UsageError(
            f"model {model.name} keeps the size of a picture; scale {scale:g} is not allowed: "
            "give at most 1, and enlarge with another model"
        )


def check_work(options: UpscaleOptions) -> None:
    """Refuse tiles, blocks and budgets that cannot work."""
    tile, overlap, block = options.tile, options.tile_overlap, options.block
    if tile is not None and tile != 0 and tile < MIN_TILE:
        raise UsageError(
            f"tile {tile} is not allowed; give 0 (no tiles) or at least {MIN_TILE} pixels"
        )
    if overlap is not None and not 0 <= overlap < HUGE:
        raise UsageError(f"tile overlap {overlap} is not allowed; give 0 or more pixels")
    if overlap is not None and tile is not None and 0 < tile <= overlap:
        raise UsageError(f"tile overlap {overlap} must be smaller than the tile, {tile}")
    if block is not None and block != 0 and block < MIN_BLOCK:
        raise UsageError(
            f"block {block} is not allowed; give 0 (no blocks) or at least {MIN_BLOCK} pixels"
        )
    if options.batch is not None and options.batch < 1:
        raise UsageError(f"batch {options.batch} is not allowed; give 1 or more")
    if options.budget is not None and not 0 < options.budget <= 1:
        raise UsageError(
            f"budget {options.budget:g} is not allowed; give a share of the dense time "
            "above 0, at most 1"
        )
    if options.exact and options.precision not in ("auto", "fp32"):
        raise UsageError(f"--exact computes in fp32; precision {options.precision} does not fit")


def check_sizes(options: UpscaleOptions) -> None:
    """Refuse a factor or a length that cannot be meant, and contradicting ones."""
    check_scale(options.scale)
    asked = [name for name in LENGTHS if getattr(options, name) is not None]
    if len(asked) > 1 or (asked and options.scale is not None):
        both = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise UsageError(f"one size is enough: leave out all but one of --scale, {both}")
    for name in asked:
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            raise UsageError(f"{flag} {getattr(options, name)} is not allowed; give 1 or more")


def check_scale(scale: float | None) -> None:
    """Refuse a factor that is not in (0, 16]."""
    if scale is not None and not (math.isfinite(scale) and 0 < scale <= MAX_SCALE):
        raise UsageError(f"scale {scale:g} is not allowed; give a number above 0, at most 16")


def scale_for(options: UpscaleOptions, width: int, height: int, native: int) -> float | None:
    """The factor for a picture of width × height pixels; None for the model's own."""
    if options.scale is not None:
        check_scale(options.scale)
        return options.scale
    short = min(width, height)
    sides = {"width": width, "height": height, "short_side": short, "min_size": short}
    for name, own in sides.items():
        wanted = getattr(options, name)
        if wanted is None:
            continue
        found = min(wanted, HUGE) / own
        if found > MAX_SCALE:
            raise UsageError(
                f"{name.replace('_', ' ')} {wanted}: that is {found:.3g} times the {own} pixels "
                f"there are; at most {MAX_SCALE:g} times"
            )
        found = max(float(native), found) if name == "min_size" else found
        check_scale(found)
        return float(found)
    return None


def named_scale(
    path: Path, options: UpscaleOptions, size: tuple[int, int], native: int
) -> float | None:
    """``scale_for`` a picture, which an error names."""
    try:
        return scale_for(options, *size, native)
    except UsageError as error:
        raise UsageError(f"{one_line(str(path))}: {error}") from None


def with_scale(options: UpscaleOptions, scale: float | None) -> UpscaleOptions:
    """The same, the factor settled."""
    return replace(options, scale=scale, width=None, height=None, short_side=None, min_size=None)


def size_label(options: UpscaleOptions, native: int) -> str:
    """What a folder of results is called by: x4, w2000."""
    for name, letter in LENGTHS.items():
        if (length := getattr(options, name)) is not None:
            return f"{letter}{length}"
    return f"x{options.scale if options.scale is not None else float(native):g}"
