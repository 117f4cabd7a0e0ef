"""What ``yoda upscale`` does with its options: find, plan, run, say. Imports torch when called."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yoda_cli.cli import _fates, _render, _render_bars
from yoda_cli.cli._downloads import agree, still_to_do
from yoda_cli.cli._downloads import say as say_downloads
from yoda_cli.cli._early import check_size
from yoda_cli.cli._log import logs
from yoda_cli.cli._options import files_named
from yoda_cli.cli._watching import Inside, Watchers, claim_report
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import InputError, UsageError
from yoda_cli.files.paths import is_folder, is_there

if TYPE_CHECKING:
    from yoda_cli.files.overwriting import Outputs
    from yoda_cli.models.model import Model
    from yoda_cli.upscaling.batch.inputs import Found
    from yoda_cli.upscaling.batch.outputs import Naming
    from yoda_cli.upscaling.batch.plan import Batch, Failure
    from yoda_cli.upscaling.batch.run import Engine
    from yoda_cli.upscaling.picture import Item
    from yoda_cli.weights.entries import FileEntry


@dataclass(frozen=True)
class Running:
    """How a run over many pictures is done."""

    recursive: bool
    files_from: Path | None
    shard: str | None
    dry_run: bool
    engine: Engine
    runtime: str = "auto"


@dataclass(frozen=True)
class Asked:
    """The whole command line."""

    inputs: tuple[Path, ...]
    output: Path | None
    options: UpscaleOptions
    writing: WriteOptions
    running: Running
    inside: Inside
    show: _fates.Show
    yes: bool = False


def run(asked: Asked) -> int:
    """The exit code."""
    from yoda_cli.images.opening import read_stream
    from yoda_cli.models.ncnn_network import load_plain
    from yoda_cli.upscaling.batch.inputs import STREAM, find_inputs, shard_of
    from yoda_cli.upscaling.batch.outputs import check_naming
    from yoda_cli.upscaling.checks import check_model, check_options
    from yoda_cli.upscaling.pipeline import downloads_of, get_model, only_reduces

    options, running, show = asked.options, asked.running, asked.show
    check_options(options)
    check_running(asked)
    check_naming(asked.writing)
    with _render.waiting("looking for pictures", quiet=not show.waits):
        found = find_inputs(
            asked.inputs, running.files_from, recursive=running.recursive, output=asked.output
        )
    outputs = outputs_of(asked, [one.path for one in found if one.path != STREAM])
    found = list(shard_of(running.shard).take(found))
    report_check = claim_report(asked.inside.report, len(found), outputs)
    is_piped = any(one.path == STREAM for one in found)
    stream = read_stream(sys.stdin.buffer) if is_piped else None
    if sys.stdout.isatty() and (asked.output == STREAM or (stream and asked.output is None)):
        raise UsageError("a picture does not go to a terminal; give -o FILE, or redirect")
    check_output(asked, len(found), from_folder=any(one.root is not None for one in found))
    if len(found) == 1:
        check_size(found[0].path, options)
    plain = is_plain(asked, found, stream)
    with _render.waiting("starting", quiet=not show.waits):
        files = [] if plain else downloads_of(options)  # torch: seconds pass here
    if files:
        if running.dry_run:
            return say_sketch(asked, found, files, stream)
        agree(files, yes=asked.yes)
    with (
        _render.waiting(f"loading {options.model}", quiet=not show.waits),
        _render_bars.download(quiet=show.quiet, bar=show.bar) as watch,
    ):
        model = load_plain(options) if plain else get_model(options, watch)
    check_model(model, options)
    if asked.inside and only_reduces(model, options.scale):
        raise UsageError("--dump and --report show diffusion, and a scale below 1 runs none")
    watchers = Watchers(
        asked.inside, asked.writing, outputs, report_check, model, adaptive=options.adaptive
    )  # fmt: skip
    return run_found(asked, found, model, outputs, watchers, stream)


def is_plain(asked: Asked, found: Sequence[Found], stream: bytes | None) -> bool:
    """Whether ncnn does it, without torch."""
    from yoda_cli.upscaling.batch.runtime import NCNN, pick_runtime

    running = asked.running
    chosen, reason = pick_runtime(
        running.runtime, asked.options, found, stream,
        is_watched=bool(asked.inside), is_local=running.engine.name == "local",
    )  # fmt: skip
    runs = f"torch runs the network: {reason}" if reason else "ncnn runs it"
    _render.detail(runs, quiet=asked.show.quiet)
    return chosen == NCNN


def run_found(
    asked: Asked, found: Sequence[Found], model: Model, outputs: Outputs, watchers: Watchers,
    stream: bytes | None,
) -> int:  # fmt: skip
    """Plan the pictures that were found, make them, and sum up: the exit code."""
    from yoda_cli.files import counted
    from yoda_cli.upscaling.batch.plan import check_disk, plan_batch, prepare

    gc.enable()  # all is loaded
    options, show = asked.options, asked.show
    naming = naming_of(asked, model.scale, model.name)
    with _render.waiting("reading what is there", quiet=not show.waits):
        batch = plan_batch(found, naming, model, options, stream=stream, outputs=outputs)
    if len(found) == 1 and batch.failures:
        show.fate(batch.failures[0])
        raise batch.failures[0].error
    check_disk(batch)
    if asked.running.dry_run:
        return _fates.say_plan(batch, model, options, show, stream)
    for failure in batch.failures:
        show.failed(failure)
    if batch.done:
        there = f"{len(batch.done)} of {counted(len(found), 'picture')} there already"
        _render.note(there, quiet=show.quiet)
    for item in batch.done:
        show.skipped(item)
    prepare(batch)
    failures = [*batch.failures, *make(batch, model, asked, stream, watchers)]
    if len(found) == 1 and failures:
        raise failures[0].error
    if len(found) > 1:
        _fates.sum_up(batch, failures, quiet=show.quiet)
    if failures and len(failures) == len(found):
        return failures[0].error.exit_code
    return InputError.exit_code if failures else 0


def say_sketch(
    asked: Asked, found: Sequence[Found], files: Sequence[FileEntry], stream: bytes | None
) -> int:
    """What a dry run says while files are missing: those, and every picture but for its time."""
    from yoda_cli.upscaling.batch.run import sketch_of

    native, name = at_first(asked.options)
    naming = naming_of(asked, native, name)
    say_downloads(files, json_lines=asked.show.json_lines, schema=_fates.SCHEMA)

    def sketch(one: Found) -> dict[str, Any]:
        many = len(found) > 1
        return sketch_of(one, naming, native, asked.options, many=many, stream=stream)

    failed = _fates.say_planned([(one.path, partial(sketch, one)) for one in found], asked.show)[1]
    first = f"{still_to_do(files)} first; nothing was downloaded or written"
    _render.note(first, quiet=asked.show.quiet)
    return InputError.exit_code if failed else 0


def naming_of(asked: Asked, native: int, name: str) -> Naming:
    """How results of a model of this factor and name are called."""
    from yoda_cli.upscaling.batch.outputs import Naming
    from yoda_cli.upscaling.checks import size_label

    options = asked.options
    scale = options.scale if options.scale is not None else float(native)
    label = size_label(options, native)
    return Naming(asked.output, name, scale, options.seed, asked.writing, label)


def at_first(options: UpscaleOptions) -> tuple[int, str]:
    """The factor and the name of a model some of whose files are missing."""
    from yoda_cli.models.loading import find_entry, find_model

    entry = find_entry(options)
    if entry is not None:
        return entry.scale, options.model
    model = find_model(options)
    return model.scale, model.name


def make(
    batch: Batch, model: Model, asked: Asked, stream: bytes | None, watchers: Watchers
) -> list[Failure]:
    """Make the pictures, saying what becomes of each."""
    from yoda_cli.upscaling.batch.plan import Events
    from yoda_cli.upscaling.batch.run import run_batch

    show, alone = asked.show, not batch.done and len(batch.items) + len(batch.failures) == 1

    def failed(failure: Failure) -> None:
        overall.end(failure.source)
        watchers.drop(failure.source)
        if alone:  # its error ends the command, and is said there
            show.fate(failure)
        else:
            show.failed(failure)

    made, replaced = 0, _fates.Replaced(batch.items)

    def finished(item: Item, record: Mapping[str, Any]) -> None:
        nonlocal made
        made += 1
        overall.end(item.source)
        show.finished(item, record, replaced.by(item))

    def notice(words: str) -> None:
        _render.note(words, quiet=show.quiet)

    def on_progress(item: Item, share: float) -> None:
        overall.at(item.source, share)

    events = Events(finished, failed, on_progress, notice)
    pixels = {item.source: item.pixels for item in batch.items}
    with _render_bars.overall(
        pixels,
        _fates.label_of(batch, model),
        quiet=show.quiet,
        bar=show.bar,
        about=asked.options.adaptive,
    ) as overall:
        try:
            return run_batch(
                batch, model, asked.options, asked.writing, events, asked.running.engine,
                stream=stream, observing=lambda item: watchers.observing(item, overall),
                on_done=watchers.finish, apart=bool(asked.inside),
            )  # fmt: skip
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_fates.interrupted(made, batch)) from None


def outputs_of(asked: Asked, pictures: list[Path]) -> Outputs:
    """What the command reads, and may therefore never write."""
    from yoda_cli.files.overwriting import Outputs

    options = asked.options
    named = files_named(
        options.model, options.where, options.attention, options.stage1, options.regressor,
        asked.running.files_from,
    )  # fmt: skip
    outputs = Outputs(asked.writing.existing, [*pictures, *named])
    for path in logs():
        outputs.reserve(path, "the log")
    return outputs


def check_running(asked: Asked) -> None:
    """Refuse combinations that cannot work."""
    if asked.inside and not asked.running.engine.is_here:
        raise UsageError("--dump and --report need one local worker: leave out -j and --engine")
    if asked.inside.dump and asked.options.adaptive:
        raise UsageError("--dump shows one chain, --adaptive runs many: --report shows them")


def check_output(asked: Asked, count: int, *, from_folder: bool) -> None:
    """Refuse an output that cannot take the inputs."""
    from yoda_cli.files import make_folder, real
    from yoda_cli.images import shown
    from yoda_cli.upscaling.batch.inputs import STREAM

    output = asked.output
    if output is None:
        return
    if output == STREAM:
        if count > 1 or from_folder:
            raise UsageError(f"standard output takes one picture; {count} were named")
        if asked.show.json_lines:
            raise UsageError("--json and -o - both want standard output")
    elif from_folder and is_there(output) and not is_folder(output):
        raise UsageError(f"{shown(output)} is no folder, and a folder's results need one")
    elif count > 1 and not from_folder and is_there(output) and not is_folder(output):
        raise UsageError(f"{count} inputs need a folder as output, and {shown(output)} is none")
    elif count > 1 and not from_folder and output.suffix and not is_there(output):
        raise UsageError(
            f"{count} inputs need a folder as output; {shown(output)} looks like a file"
        )
    elif count > 1 and not from_folder and not asked.running.dry_run:
        make_folder(output)
    elif any(is_folder(one) and real(one) == real(output) for one in asked.inputs):
        raise UsageError(f"{shown(output)} is an input folder; give another one as output")
