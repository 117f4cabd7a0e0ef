"""``yoda upscale``: pictures in, larger pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoda_cli.cli._options import (
    CacheDir,
    Device,
    Heads,
    JsonLines,
    LowerBound,
    ModelName,
    Offline,
    Overwrite,
    Quiet,
    RegistryFile,
    Source,
    Steps,
    parse_denoise,
    parse_size,
)
from yoda_cli.cli._upscaling import Asked, Inside, Running, Show, run
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import UsageError

OUTPUT, WORK, RUNNING, INSIDE = "Output", "Memory and speed", "Running", "A look inside"

SIZE = "Other ways to say how large"
PHOTO = "Models that restore first (photo)"


def upscale(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures, folders, patterns, or - for standard input."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File, folder, or - for standard output."),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option("-s", "--scale", help="Any factor up to 16 (default: the model's own)."),
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Or the width in pixels.", rich_help_panel=SIZE)
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Or the height in pixels.", rich_help_panel=SIZE)
    ] = None,
    short_side: Annotated[
        int | None, typer.Option(help="Or the shorter of them.", rich_help_panel=SIZE)
    ] = None,
    min_size: Annotated[
        int | None,
        typer.Option(
            help="The model's factor, more where a side would stay below.", rich_help_panel=SIZE
        ),
    ] = None,
    model: ModelName = "general",
    attention: Source = None,
    heads: Heads = None,
    lower_bound: LowerBound = None,
    steps: Steps = None,
    sampler: Annotated[
        str | None, typer.Option(help="ddim, ddpm, ddpm-sr3, dpm++ or dpm++3m-sde.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another texture.")] = 0,
    fidelity: Annotated[
        float | None, typer.Option(help="0: sampled detail … 1: smooth. Else by --denoise.")
    ] = None,
    denoise: Annotated[
        str, typer.Option(help="How damaged the picture is: auto, none, light, strong or 0 … 1.")
    ] = "auto",
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Run the paper's printed eqs. 9 and 11.")
    ] = False,
    task: Annotated[
        str | None, typer.Option(help="sr, face or denoise (default: sr).", rich_help_panel=PHOTO)
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="What is in the picture (default: the model's).", rich_help_panel=PHOTO),
    ] = None,
    negative_prompt: Annotated[
        str | None,
        typer.Option(help="What should not be (default: the model's).", rich_help_panel=PHOTO),
    ] = None,
    cfg: Annotated[
        float | None,
        typer.Option(
            help="Prompts' strength, 1: none (default: the model's).", rich_help_panel=PHOTO
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="Of the restored picture's control, 0 … 2 (default: 1).", rich_help_panel=PHOTO
        ),
    ] = None,
    stage1: Annotated[
        str | None,
        typer.Option(help="Restorer: a name, a file, or none.", rich_help_panel=PHOTO),
    ] = None,
    attention_from: Annotated[
        str | None,
        typer.Option(help="Whose map: stage1 (default) or lr.", rich_help_panel=PHOTO),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Share in (0, 1] of the dense run's time; bends the map to meet it."),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16 or fp16.", rich_help_panel=WORK)
    ] = "auto",
    tile: Annotated[
        str,
        typer.Option(
            "-t", "--tile", help="auto, 0 (none) or a core in output pixels.", rich_help_panel=WORK
        ),
    ] = "auto",
    tile_overlap: Annotated[
        int | None, typer.Option(help="Halo around a tile, output pixels.", rich_help_panel=WORK)
    ] = None,
    block: Annotated[
        str,
        typer.Option(help="auto, 0 (one) or the side of independent blocks.", rich_help_panel=WORK),
    ] = "auto",
    batch: Annotated[
        int | None,
        typer.Option("-b", "--batch", help="Windows a GPU takes together.", rich_help_panel=WORK),
    ] = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile", help="Have torch compile the network (long runs).", rich_help_panel=WORK
        ),
    ] = False,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Write very large pictures by blocks, through pyvips (default: where it pays).",
            rich_help_panel=WORK,
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="The same bytes whatever is skipped, for any number of workers: in fp32.",
            rich_help_panel=WORK,
        ),
    ] = False,
    skip: Annotated[
        bool,
        typer.Option(
            "--skip/--no-skip", help="Skip idle tiles (same result).", rich_help_panel=WORK
        ),
    ] = True,
    format: Annotated[
        str | None,
        typer.Option(help="png, jpg, webp, tif, bmp, avif, gif.", rich_help_panel=OUTPUT),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            help="JPEG, WebP and AVIF quality (default: 95).",
            min=1,
            max=100,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    suffix: Annotated[
        str, typer.Option(help="Put after the input's name.", rich_help_panel=OUTPUT)
    ] = "",
    name_template: Annotated[
        str | None,
        typer.Option(
            help="Names with {stem}, {model}, {scale}, {seed} in them.", rich_help_panel=OUTPUT
        ),
    ] = None,
    overwrite: Overwrite = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Leave results alone that these inputs and settings made.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    fail_existing: Annotated[
        bool,
        typer.Option("--fail-existing", help="Replace nothing at all.", rich_help_panel=OUTPUT),
    ] = False,
    strip_metadata: Annotated[
        bool,
        typer.Option(
            "--strip-metadata", help="Keep only pixels and colour profile.", rich_help_panel=OUTPUT
        ),
    ] = False,
    recursive: Annotated[
        bool,
        typer.Option("-r", "--recursive", help="Folders in folders too.", rich_help_panel=RUNNING),
    ] = False,
    files_from: Annotated[
        Path | None,
        typer.Option(help="A file with one picture's name a line.", rich_help_panel=RUNNING),
    ] = None,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", help="Worker processes.", min=1, rich_help_panel=RUNNING)
    ] = 1,
    shard: Annotated[
        str | None,
        typer.Option(
            help="i/n: every n-th picture from the i-th, or auto.", rich_help_panel=RUNNING
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="local or ray.", rich_help_panel=RUNNING)] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster.", rich_help_panel=RUNNING)
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="What would be done, and how long.", rich_help_panel=RUNNING
        ),
    ] = False,
    fail_fast: Annotated[
        bool,
        typer.Option("--fail-fast", help="Stop at the first failure.", rich_help_panel=RUNNING),
    ] = False,
    dump: Annotated[
        Path | None,
        typer.Option(help="Folder for maps, masks and steps.", rich_help_panel=INSIDE),
    ] = None,
    save_attention: Annotated[
        bool,
        typer.Option(
            "--save-attention", help="Dump the map (all if none is named).", rich_help_panel=INSIDE
        ),
    ] = False,
    save_masks: Annotated[
        bool, typer.Option("--save-masks", help="Dump every M(t).", rich_help_panel=INSIDE)
    ] = False,
    save_steps: Annotated[
        bool,
        typer.Option("--save-steps", help="Dump every state and estimate.", rich_help_panel=INSIDE),
    ] = False,
    every: Annotated[
        int, typer.Option(help="Dump every N-th step, and the last.", min=1, rich_help_panel=INSIDE)
    ] = 1,
    report: Annotated[
        Path | None,
        typer.Option(help="One HTML page about the run (one input).", rich_help_panel=INSIDE),
    ] = None,
    json_lines: JsonLines = False,
    quiet: Quiet = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> int:
    """Enlarge pictures by masked diffusion. Without -o a result stands beside its input, a
    folder's results in a folder beside it."""
    options = UpscaleOptions(
        scale=scale, width=width, height=height, short_side=short_side, min_size=min_size,
        model=model, attention=attention, heads=heads, lower_bound=lower_bound,
        steps=steps, sampler=sampler, seed=seed, fidelity=fidelity,
        denoise=parse_denoise(denoise), device=device, precision=precision,
        tile=parse_size("tile", tile), tile_overlap=tile_overlap,
        block=parse_size("block", block), batch=batch, compile=compile, faithful=faithful,
        skip=skip, exact=exact,
        stream=stream, budget=budget, task=task, prompt=prompt,
        negative_prompt=negative_prompt, cfg=cfg, strength=strength, stage1=stage1,
        attention_from=attention_from,
    )  # fmt: skip
    chosen = [overwrite, skip_existing, fail_existing]
    if sum(chosen) > 1:
        raise UsageError("give only one of --overwrite, --skip-existing and --fail-existing")
    writing = WriteOptions(
        existing="overwrite" if overwrite else "skip" if skip_existing else
        "fail" if fail_existing else "own",
        quality=quality, format=format, name_template=name_template, suffix=suffix,
        strip_metadata=strip_metadata,
    )  # fmt: skip
    named = (save_attention, save_masks, save_steps)
    if any(named) and dump is None:
        raise UsageError("--save-attention, --save-masks and --save-steps need --dump FOLDER")
    inside = Inside(dump, named if any(named) else (True, True, True), every, report)
    running = Running(
        recursive, files_from, jobs, shard, engine, address, dry_run, fail_fast
    )  # fmt: skip
    show = Show(json_lines=json_lines, quiet=quiet, bar=not no_progress)
    return run(Asked(tuple(inputs or ()), output, options, writing, running, inside, show))
