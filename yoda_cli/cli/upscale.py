"""``yoda upscale``: pictures in, larger pictures out."""

from __future__ import annotations

from yoda_cli.cli import _early, _names, _render
from yoda_cli.cli import _upscale_at_once as at_once
from yoda_cli.cli import _upscale_options as o
from yoda_cli.cli._fates import Show
from yoda_cli.cli._options import parse_denoise, parse_leaps, parse_pixels, parse_scale, parse_size
from yoda_cli.cli._room import check_room
from yoda_cli.cli._upscaling import Asked, Running, run
from yoda_cli.cli._watching import Inside
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import UsageError


def upscale(
    inputs: o.Pictures = None,
    output: o.Output = None,
    scale: o.Scale = None,
    width: o.Width = None,
    model: o.Model = "general",
    format: o.Format = None,
    quality: o.Quality = None,
    denoise: o.Denoise = "auto",
    fidelity: o.Fidelity = None,
    seed: o.Seed = 0,
    steps: o.Steps = None,
    recursive: o.Recursive = False,
    jobs: o.Jobs = 1,
    skip_existing: o.SkipExisting = False,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    height: o.Height = None,
    short_side: o.ShortSide = None,
    min_size: o.MinSize = None,
    attention: o.Attention = None,
    heads: o.Heads = None,
    lower_bound: o.LowerBound = None,
    budget: o.Budget = None,
    sampler: o.Sampler = None,
    faithful: o.Faithful = False,
    adaptive: o.Adaptive = False,
    tau: o.Tau = None,
    leaps: o.Leaps = None,
    regressor: o.Regressor = None,
    faces: o.Faces = False,
    refine: o.Refine = False,
    where: o.Where = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    tile: o.Tile = "auto",
    tile_overlap: o.TileOverlap = None,
    block: o.Block = "auto",
    max_pixels: o.MaxPixels = "500M",
    accept_damaged: o.AcceptDamaged = False,
    batch: o.Batch = None,
    compile: o.Compile = False,
    stream: o.Stream = None,
    exact: o.Exact = False,
    skip: o.Skip = True,
    task: o.Task = None,
    prompt: o.Prompt = None,
    negative_prompt: o.NegativePrompt = None,
    cfg: o.Cfg = None,
    strength: o.Strength = None,
    stage1: o.Stage1 = None,
    attention_from: o.AttentionFrom = None,
    suffix: o.Suffix = "",
    name_template: o.NameTemplate = None,
    fail_existing: o.FailExisting = False,
    strip_metadata: o.StripMetadata = False,
    files_from: o.FilesFrom = None,
    shard: o.Shard = None,
    engine: o.Engine = "local",
    address: o.Address = None,
    fail_fast: o.FailFast = False,
    dump: o.Dump = None,
    save_attention: o.SaveAttention = False,
    save_masks: o.SaveMasks = False,
    save_steps: o.SaveSteps = False,
    every: o.Every = 1,
    report: o.Report = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json_lines: o.Json = False,
    no_progress: o.NoProgress = False,
    log_file: at_once.LogFile = None,
    offline: at_once.Offline = False,
    cache_dir: at_once.CacheDir = None,
    registry: at_once.RegistryFile = None,
    help: at_once.Help = False,
    help_all: at_once.HelpAll = False,
    alias_input: o.AliasInput = None,
    alias_model: o.AliasModel = None,
    alias_format: o.AliasFormat = None,
) -> int:
    """Make pictures larger: files, folders, patterns in quotes, or - for standard input."""
    inputs = [*(alias_input or ()), *(inputs or ())]
    model, format = alias_model or model, alias_format or format
    options = UpscaleOptions(
        scale=parse_scale(scale), width=width, height=height, short_side=short_side,
        min_size=min_size, model=model, attention=attention, heads=heads, lower_bound=lower_bound,
        steps=steps, sampler=sampler, seed=seed, fidelity=fidelity,
        denoise=parse_denoise(denoise), device=device, precision=precision,
        tile=parse_size("tile", tile), tile_overlap=tile_overlap,
        block=parse_size("block", block), batch=batch, compile=compile, faithful=faithful,
        skip=skip, exact=exact,
        stream=stream, budget=budget, adaptive=adaptive, tau=tau, leaps=parse_leaps(leaps),
        regressor=regressor, faces=faces, refine=refine, where=where,
        task=task, prompt=prompt,
        negative_prompt=negative_prompt, cfg=cfg, strength=strength, stage1=stage1,
        attention_from=attention_from,
        max_pixels=parse_pixels(max_pixels), accept_damaged=accept_damaged,
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
    _early.check(inputs, files_from, options)
    _early.check_output(inputs, output)
    _early.one_of("runtime", runtime, _names.RUNTIMES)
    _early.in_range(jobs=(jobs, 1, None), every=(every, 1, None), quality=(quality, 1, 100))
    check_room()
    show = Show(json_lines=json_lines, quiet=quiet, bar=not no_progress)
    with _render.waiting("starting", quiet=quiet or no_progress):
        from yoda_cli.upscaling.batch.run import Engine

    running = Running(
        recursive, files_from, shard, dry_run, Engine(engine, jobs, address, fail_fast), runtime
    )  # fmt: skip
    return run(Asked(tuple(inputs), output, options, writing, running, inside, show, yes))
