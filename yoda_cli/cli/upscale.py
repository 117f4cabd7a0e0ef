"""``yoda upscale``: pictures in, larger pictures out."""

from __future__ import annotations

from yoda_cli.cli import _early, _names, _render
from yoda_cli.cli._fates import Show
from yoda_cli.cli._options import parse_denoise, parse_leaps, parse_pixels, parse_scale, parse_size
from yoda_cli.cli._room import check_room
from yoda_cli.cli._upscale_options import UpscaleArguments
from yoda_cli.cli._upscaling import Asked, Running, run
from yoda_cli.cli._watching import Inside
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import UsageError

EPILOG = """\
[bold]Examples[/bold]
  yoda upscale photo.jpg
  yoda upscale photo.jpg -o large.png --width 3000
  yoda upscale old.jpg --denoise strong
  yoda upscale photos/ -r -o enlarged/
"""


def upscale(args: UpscaleArguments) -> int:
    """Make pictures larger: files, folders, patterns in quotes, or - for standard input."""
    inputs = [*(args.aliases.alias_input or ()), *(args.inputs or ())]
    options, writing, inside = options_of(args), writing_of(args), inside_of(args)
    machines, jobs, runtime = args.machines, args.folders.jobs, args.work.runtime
    _early.check(inputs, machines.files_from, options)
    _early.check_output(inputs, args.what.output)
    _early.one_of("runtime", runtime, _names.RUNTIMES)
    _early.in_range(
        jobs=(jobs, 1, None), every=(inside.every, 1, None), quality=(writing.quality, 1, 100)
    )
    check_room()
    talk = args.talk
    show = Show(json_lines=talk.json_lines, quiet=talk.quiet, bar=not talk.no_progress)
    with _render.waiting("starting", quiet=not show.waits):
        from yoda_cli.upscaling.batch.run import Engine

    engine = Engine(machines.engine, jobs, machines.address, machines.fail_fast)
    running = Running(
        args.folders.recursive, machines.files_from, machines.shard, args.folders.dry_run,
        engine, runtime,
    )  # fmt: skip
    return run(
        Asked(tuple(inputs), args.what.output, options, writing, running, inside, show, args.yes)
    )


def options_of(args: UpscaleArguments) -> UpscaleOptions:
    """What decides the pixels. Raises UsageError for a word that cannot be read."""
    what, look, sizes, where = args.what, args.look, args.sizes, args.diffusion
    deciding, beside, work, latent = args.deciding, args.beside, args.work, args.latent
    return UpscaleOptions(
        scale=parse_scale(what.scale), width=what.width, height=sizes.height,
        short_side=sizes.short_side, min_size=sizes.min_size,
        model=args.aliases.alias_model or what.model,
        attention=where.attention, heads=where.heads, lower_bound=where.lower_bound,
        budget=where.budget, sampler=where.sampler, faithful=where.faithful,
        steps=look.steps, seed=look.seed, fidelity=look.fidelity,
        denoise=parse_denoise(look.denoise),
        adaptive=deciding.adaptive, tau=deciding.tau, leaps=parse_leaps(deciding.leaps),
        regressor=deciding.regressor, faces=beside.faces, refine=beside.refine, where=beside.where,
        device=work.device, precision=work.precision, tile=parse_size("tile", work.tile),
        tile_overlap=work.tile_overlap, block=parse_size("block", work.block),
        max_pixels=parse_pixels(work.max_pixels), accept_damaged=work.accept_damaged,
        batch=work.batch, compile=work.compile, stream=work.stream, exact=work.exact,
        skip=work.skip, task=latent.task, prompt=latent.prompt,
        negative_prompt=latent.negative_prompt, cfg=latent.cfg, strength=latent.strength,
        stage1=latent.stage1, attention_from=latent.attention_from,
    )  # fmt: skip


def writing_of(args: UpscaleArguments) -> WriteOptions:
    """How results are written. Raises UsageError for two ways to meet a file that is there."""
    overwrite, skip, fail = (
        args.folders.overwrite, args.folders.skip_existing, args.naming.fail_existing
    )  # fmt: skip
    if overwrite + skip + fail > 1:
        raise UsageError("give only one of --overwrite, --skip-existing and --fail-existing")
    return WriteOptions(
        existing="overwrite" if overwrite else "skip" if skip else "fail" if fail else "own",
        quality=args.what.quality,
        format=args.aliases.alias_format or args.what.format,
        name_template=args.naming.name_template,
        suffix=args.naming.suffix,
        strip_metadata=args.naming.strip_metadata,
    )


def inside_of(args: UpscaleArguments) -> Inside:
    """What is kept of each run. Raises UsageError where it has no folder to be kept in."""
    asked = args.inside
    named = (asked.save_attention, asked.save_masks, asked.save_steps)
    if any(named) and asked.dump is None:
        raise UsageError("--save-attention, --save-masks and --save-steps need --dump FOLDER")
    return Inside(
        asked.dump, named if any(named) else (True, True, True), asked.every, asked.report
    )
