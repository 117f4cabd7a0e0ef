"""``yoda upscale``: pictures in, larger pictures out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yoda_cli.cli import _render
from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import InputError, NotFoundError, OutputError, UsageError, YodaError

if TYPE_CHECKING:
    from yoda_cli.pipeline import Model, Result


def upscale(
    inputs: Annotated[list[Path], typer.Argument(help="Pictures to enlarge.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File (one input) or existing folder.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option("-s", "--scale", help="Any factor up to 16 [model's own].")
    ] = None,
    model: Annotated[
        str, typer.Option("-m", "--model", help="Model name or checkpoint file.")
    ] = "general",
    attention: Annotated[
        str | None,
        typer.Option(help="learned, uniform, edge, sift, gaussian, or a grey picture."),
    ] = None,
    lower_bound: Annotated[
        float | None, typer.Option(help="l in (0, 1]: how much diffusion every area gets.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Diffusion steps.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddim, ddpm, ddpm-sr3 or dpm++.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another texture.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    tile: Annotated[
        str, typer.Option("-t", "--tile", help="auto, 0 (none) or a core size in output pixels.")
    ] = "auto",
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Run the paper's printed eqs. 9 and 11.")
    ] = False,
    skip: Annotated[
        bool, typer.Option("--skip/--no-skip", help="Skip idle tiles (the same result).")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that yoda did not make.")
    ] = False,
    quality: Annotated[int, typer.Option(help="JPEG and WebP quality.", min=1, max=100)] = 95,
    json_lines: Annotated[
        bool, typer.Option("--json", help="One JSON object per input on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors on stderr.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
) -> int:
    """Enlarge pictures by masked diffusion; the result stands beside the input unless -o is given."""
    options = UpscaleOptions(
        scale=scale,
        model=model,
        attention=attention,
        lower_bound=lower_bound,
        steps=steps,
        sampler=sampler,
        seed=seed,
        device=device,
        precision=precision,
        tile=parse_tile(tile),
        faithful=faithful,
        skip=skip,
    )
    show = Show(json_lines=json_lines, quiet=quiet, bar=not no_progress)
    writing = Writing(overwrite=overwrite, quality=quality)
    return upscale_files(inputs, output, options, writing, show)
