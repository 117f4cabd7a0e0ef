"""What ``yoda upscale`` does with its options: find, plan, run, say. Imports torch when called."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yoda_cli.cli import _render
from yoda_cli.cli._options import files_named
from yoda_cli.cli._watching import Inside, Watchers, claim_report
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import InputError, UsageError, YodaError

if TYPE_CHECKING:
    from yoda_cli.files.overwriting import Outputs
    from yoda_cli.models.model import Model
    from yoda_cli.upscaling.batch.inputs import Found
    from yoda_cli.upscaling.batch.plan import Batch, Failure
    from yoda_cli.upscaling.batch.run import Engine
    from yoda_cli.upscaling.picture import Item


SCHEMA = 2  # of a line of --json
NAMED_AT_THE_END = 20  # failed pictures


@dataclass(frozen=True)
class Running:
    """How a run over many pictures is done."""

    recursive: bool
    files_from: Path | None
    shard: str | None
    dry_run: bool
    engine: Engine


@dataclass(frozen=True)
class Show:
    """What is said of a finished picture, and where."""

    json_lines: bool
    quiet: bool
    bar: bool

    def finished(self, item: Item, record: Mapping[str, Any]) -> None:
        from yoda_cli.upscaling.batch.inputs import STREAM
        from yoda_cli.upscaling.batch.record import line_of

        if not self.quiet:
            for notice in record["notices"]:
                _render.note(f"{item.source.name}: {notice}")
            _render.note(f"{item.source.name}: {line_of(record)}")
        if item.target == STREAM:
            return
        if self.json_lines:
            _render.document(record)
        else:
            _render.place(item.target)

    def failed(self, failure: Failure) -> None:
        _render.fault(failure.error)
        self.fate(failure)

    def fate(self, failure: Failure) -> None:
        """What ``--json`` says of a picture that could not be made."""
        if self.json_lines:
            error = " ".join(str(failure.error).split())
            _render.document({
                "schema": SCHEMA, "status": "failed", "input": str(failure.source),
                "error": error, "exit_code": failure.error.exit_code,
            })  # fmt: skip

    def skipped(self, item: Item) -> None:
        """What ``--json`` says of a picture that is there already."""
        if self.json_lines:
            _render.document({
                "schema": SCHEMA, "status": "skipped", "input": str(item.source),
                "output": str(item.target),
            })  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The whole command line."""

    inputs: tuple[Path, ...]
    output: Path | None
    options: UpscaleOptions
    writing: WriteOptions
    running: Running
    inside: Inside
    show: Show


def run(asked: Asked) -> int:
    """The exit code."""
    from yoda_cli.images.opening import read_stream
    from yoda_cli.upscaling.batch.inputs import STREAM, find_inputs, shard_of
    from yoda_cli.upscaling.batch.outputs import check_naming
    from yoda_cli.upscaling.checks import check_model, check_options
    from yoda_cli.upscaling.pipeline import get_model, only_reduces

    options, running, show = asked.options, asked.running, asked.show
    check_options(options)
    check_running(asked)
    check_naming(asked.writing)
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
    check_output(asked, len(found), is_folder=any(one.root is not None for one in found))
    with _render.download(quiet=show.quiet, bar=show.bar) as watch:
        model = get_model(options, watch)
    check_model(model, options)
    if asked.inside and only_reduces(model, options.scale):
        raise UsageError("--dump and --report show diffusion, and a scale below 1 runs none")
    watchers = Watchers(
        asked.inside,
        asked.writing,
        outputs,
        report_check,
        quiet=show.quiet,
        bar=show.bar,
        adaptive=options.adaptive,
    )
    return run_found(asked, found, model, outputs, watchers, stream)


def run_found(
    asked: Asked, found: Sequence[Found], model: Model, outputs: Outputs, watchers: Watchers,
    stream: bytes | None,
) -> int:  # fmt: skip
    """Plan the pictures that were found, make them, and sum up: the exit code."""
    from yoda_cli.upscaling.batch.outputs import Naming
    from yoda_cli.upscaling.batch.plan import check_disk, plan_batch, prepare
    from yoda_cli.upscaling.checks import size_label

    options, show = asked.options, asked.show
    scale = options.scale if options.scale is not None else float(model.scale)
    label = size_label(options, model.scale)
    naming = Naming(asked.output, model.name, scale, options.seed, asked.writing, label)
    batch = plan_batch(found, naming, model, options, stream=stream, outputs=outputs)
    if len(found) == 1 and batch.failures:
        show.fate(batch.failures[0])
        raise batch.failures[0].error
    check_disk(batch)
    if asked.running.dry_run:
        return say_plan(batch, model, options, show, stream)
    for failure in batch.failures:
        show.failed(failure)
    if not show.quiet and batch.done:
        _render.note(f"{len(batch.done)} of {len(found)} pictures are there already")
    for item in batch.done:
        show.skipped(item)
    prepare(batch)
    failures = [*batch.failures, *make(batch, model, asked, stream, watchers)]
    if len(found) == 1 and failures:
        raise failures[0].error
    if not show.quiet and len(found) > 1:
        sum_up(batch, failures)
    if failures and len(failures) == len(found):
        return failures[0].error.exit_code
    return InputError.exit_code if failures else 0


def sum_up(batch: Batch, failures: Sequence[Failure]) -> None:
    """The last lines of a run: how many were made, and which were not."""
    made = len(batch.items) + len(batch.failures) - len(failures)
    _render.note(f"{made} made, {len(batch.done)} there already, {len(failures)} failed")
    for failure in failures[:NAMED_AT_THE_END]:
        _render.note(f"failed: {failure.source}")
    if len(failures) > NAMED_AT_THE_END:
        _render.note(f"and {len(failures) - NAMED_AT_THE_END} more")


def make(
    batch: Batch, model: Model, asked: Asked, stream: bytes | None, watchers: Watchers
) -> list[Failure]:
    """Make the pictures, saying what becomes of each."""
    from yoda_cli.upscaling.batch.plan import Events
    from yoda_cli.upscaling.batch.run import run_batch

    show, alone = asked.show, len(batch.items) + len(batch.failures) == 1

    def failed(failure: Failure) -> None:
        watchers.drop(failure.source)
        if alone:  # its error ends the command, and is said there
            show.fate(failure)
        else:
            show.failed(failure)

    made = 0

    def finished(item: Item, record: Mapping[str, Any]) -> None:
        nonlocal made
        made += 1
        show.finished(item, record)

    try:
        return run_batch(
            batch, model, asked.options, asked.writing, Events(finished, failed),
            asked.running.engine, stream=stream, observing=watchers.observing,
            on_done=lambda done: watchers.finish(done, model),
        )  # fmt: skip
    except KeyboardInterrupt:
        if not show.quiet:
            again = "; the same command goes on" if batch.manifests else ""
            _render.note(f"interrupted: {made} of {len(batch.items)} made{again}")
        raise


def outputs_of(asked: Asked, pictures: list[Path]) -> Outputs:
    """What the command reads, and may therefore never write."""
    from yoda_cli.files.overwriting import Outputs

    options = asked.options
    named = files_named(
        options.model, options.attention, options.stage1, options.regressor,
        asked.running.files_from,
    )  # fmt: skip
    return Outputs(asked.writing.existing, [*pictures, *named])


def check_running(asked: Asked) -> None:
    """Refuse combinations that cannot work."""
    if asked.inside and not asked.running.engine.is_here:
        raise UsageError("--dump and --report need one local worker: leave out -j and --engine")
    if asked.inside.dump and asked.options.adaptive:
        raise UsageError("--dump shows one chain, --adaptive runs many: --report shows them")


def check_output(asked: Asked, count: int, *, is_folder: bool) -> None:
    """Refuse an output that cannot take the inputs."""
    from yoda_cli.files import make_folder
    from yoda_cli.images import shown
    from yoda_cli.upscaling.batch.inputs import STREAM

    output = asked.output
    if output is None:
        return
    if output == STREAM:
        if count > 1 or is_folder:
            raise UsageError(f"standard output takes one picture; {count} were named")
        if asked.show.json_lines:
            raise UsageError("--json and -o - both want standard output")
    elif is_folder and output.exists() and not output.is_dir():
        raise UsageError(f"{shown(output)} is no folder, and a folder's results need one")
    elif count > 1 and not is_folder and output.exists() and not output.is_dir():
        raise UsageError(f"{count} inputs need a folder as output, and {shown(output)} is none")
    elif count > 1 and not is_folder and output.suffix and not output.exists():
        raise UsageError(
            f"{count} inputs need a folder as output; {shown(output)} looks like a file"
        )
    elif count > 1 and not is_folder and not asked.running.dry_run:
        make_folder(output)
    elif any(one.is_dir() and one.resolve() == output.resolve() for one in asked.inputs):
        raise UsageError(f"{shown(output)} is an input folder; give another one as output")


def say_plan(
    batch: Batch, model: Model, options: UpscaleOptions, show: Show, stream: bytes | None
) -> int:
    """What would be done, one line or JSON object per picture."""
    from yoda_cli.upscaling.batch.record import forecast_line
    from yoda_cli.upscaling.batch.run import forecast_of

    total, failed = 0.0, len(batch.failures)
    for failure in batch.failures:
        show.failed(failure)
    for item in batch.items:
        try:
            record = forecast_of(item, model, options, stream)
        except YodaError as error:
            failed += 1
            _render.fault(error)
            continue
        total += record["forecast_seconds"]
        if show.json_lines:
            _render.document(record)
        else:
            _render.result(forecast_line(record))
    if not show.quiet:
        there = f", {len(batch.done)} there already" if batch.done else ""
        _render.note(
            f"{len(batch.items)} to make{there}, about {total:.0f} s and "
            f"{batch.output_bytes / 1e6:.1f} MB; nothing was written"
        )
    return InputError.exit_code if failed else 0
