"""Which values of the options can be meant; asked before anything is loaded."""

from __future__ import annotations

import math

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion import SAMPLERS, STOCHASTIC_SAMPLERS
from yoda_cli.errors import UsageError
from yoda_cli.planning import MIN_TILE

MAX_SCALE = 16.0
MIN_BLOCK = 256


def check_options(options: UpscaleOptions) -> None:
    """Refuse values that cannot be meant."""
    check_work(options)
    scale, lower = options.scale, options.lower_bound
    if scale is not None and not (math.isfinite(scale) and 0 < scale <= MAX_SCALE):
        raise UsageError(f"scale {scale:g} is not allowed; give a number above 0, at most 16")
    if lower is not None and not (0 < lower <= 1):
        raise UsageError(f"lower bound {lower:g} is not allowed; give a number above 0, at most 1")
    if not 0 <= options.fidelity <= 1:
        raise UsageError(f"fidelity {options.fidelity:g} is not allowed; give 0 … 1")
    if options.denoise is not None and not 0 <= options.denoise <= 1:
        raise UsageError(f"denoise {options.denoise:g} is not allowed; give auto or 0 … 1")
    if options.steps is not None and options.steps < 1:
        raise UsageError(f"steps {options.steps} is not allowed; give 1 or more")
    if not 0 <= options.seed < 2**63:
        raise UsageError(f"seed {options.seed} is not allowed; give 0 … 2^63-1")
    if options.sampler is not None and options.sampler not in SAMPLERS:
        raise UsageError(f"unknown sampler {options.sampler!r}; use {', '.join(SAMPLERS)}")
    if options.faithful and options.sampler not in (None, *STOCHASTIC_SAMPLERS):
        raise UsageError(
            f"--faithful needs the variance of an ancestral step; sampler {options.sampler!r} "
            f"has none: use {' or '.join(STOCHASTIC_SAMPLERS)}"
        )


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
