"""Which values of the options can be meant; asked before anything is loaded."""

from __future__ import annotations

import math

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffbir.version import TASKS
from yoda_cli.errors import UsageError
from yoda_cli.models import Model
from yoda_cli.planning import MIN_TILE
from yoda_cli.samplers import ANCESTRAL_SAMPLERS, SAMPLERS
from yoda_cli.sizes import check_sizes

MIN_BLOCK = 256


def check_options(options: UpscaleOptions) -> None:
    """Refuse values that cannot be meant."""
    check_work(options)
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
    if options.faithful and options.sampler not in (None, *ANCESTRAL_SAMPLERS):
        raise UsageError(
            f"--faithful needs the variance of an ancestral step; sampler {options.sampler!r} "
            f"has none: use {' or '.join(ANCESTRAL_SAMPLERS)}"
        )


def check_latent(options: UpscaleOptions) -> None:
    """Refuse values of what only latent models read."""
    if options.task is not None and options.task not in TASKS:
        raise UsageError(f"unknown task {options.task!r}; use {', '.join(TASKS)}")
    if options.attention_from not in (None, "stage1", "lr"):
        raise UsageError(f"attention from {options.attention_from!r}? use stage1 or lr")
    if options.cfg is not None and not (math.isfinite(options.cfg) and 0 <= options.cfg <= 30):
        raise UsageError(f"cfg {options.cfg:g} is not allowed; give 0 … 30")
    if options.strength is not None and not 0 <= options.strength <= 2:
        raise UsageError(f"strength {options.strength:g} is not allowed; give 0 … 2")


#: Options that only a latent model reads.
LATENT_ONLY = (
    "task", "stage1", "attention_from", "prompt", "negative_prompt", "cfg", "strength",
)  # fmt: skip


def check_model(model: Model, options: UpscaleOptions) -> None:
    """Refuse options that this model would not read."""
    if model.parts is not None:
        if options.block is not None:
            raise UsageError(f"model {model.name} works on one block; leave out --block")
        return
    for name in LATENT_ONLY:
        if getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise UsageError(f"model {model.name} does not read --{flag}; it is for photo")


def check_work(options: UpscaleOptions) -> None:
    """Refuse tiles, blocks and budgets that cannot work."""
    tile, overlap, block = options.tile, options.tile_overlap, options.block
    if tile is not None and tile != 0 and tile < MIN_TILE:
        raise UsageError(
            f"tile {tile} is not allowed; give 0 (no tiles) or at least {MIN_TILE} pixels"
        )
    if overlap is not None and overlap < 0:
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
