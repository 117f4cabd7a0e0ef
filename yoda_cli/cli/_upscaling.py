"""What ``yoda upscale`` does with its options: find, plan, run, say. Imports torch when called."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from yoda_cli.cli import _render
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import InputError, UsageError, YodaError

if TYPE_CHECKING:
    from yoda_cli.models.model import Model
    from yoda_cli.upscaling.batch.plan import Batch, Failure
    from yoda_cli.upscaling.picture import Finished, Item
    from yoda_cli.upscaling.result import Observer

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Inside:
    """What is kept of how a picture came about; ``named`` is (attention, masks, steps)."""

    dump: Path | None
    named: tuple[bool, bool, bool]
    every: int
    report: Path | None

    def __bool__(self) -> bool:
        return self.dump is not None or self.report is not None


@dataclass(frozen=True)
class Running:
    """How a run over many pictures is done."""

    recursive: bool
    files_from: Path | None
    jobs: int
    shard: str | None
    engine: str
    address: str | None
    dry_run: bool
    fail_fast: bool


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
        line = json.dumps(record) if self.json_lines else item.target
        typer.echo(line if self.json_lines else os.fsencode(line))

    def failed(self, failure: Failure) -> None:
        _render.note(f"yoda: {' '.join(str(failure.error).split())}")


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
    from yoda_cli.upscaling.batch.outputs import Naming, check_template, named_format
    from yoda_cli.upscaling.batch.plan import check_disk, plan_batch, prepare
    from yoda_cli.upscaling.checks import check_model, check_options, size_label
    from yoda_cli.upscaling.pipeline import get_model

    options, running, show = asked.options, asked.running, asked.show
    check_options(options)
    check_running(asked)
    if asked.writing.format is not None:
        named_format(asked.writing.format)
    if asked.writing.name_template is not None:
        check_template(asked.writing.name_template)
    found = find_inputs(
        asked.inputs, running.files_from, recursive=running.recursive, output=asked.output
    )
    found = list(shard_of(running.shard).take(found))
    is_piped = any(one.path == STREAM for one in found)
    stream = read_stream(sys.stdin.buffer) if is_piped else None
    if sys.stdout.isatty() and (asked.output == STREAM or (stream and asked.output is None)):
        raise UsageError("a picture does not go to a terminal; give -o FILE, or redirect")
    check_output(asked, len(found), is_folder=any(one.root is not None for one in found))
    with _render.download(quiet=show.quiet) as watch:
        model = get_model(options, watch)
    check_model(model, options)
    scale = options.scale if options.scale is not None else float(model.scale)
    label = size_label(options, model.scale)
    naming = Naming(asked.output, model.name, scale, options.seed, asked.writing, label)
    batch = plan_batch(found, naming, model, options, stream=stream)
    if len(found) == 1 and batch.failures:
        raise batch.failures[0].error
    check_disk(batch)
    if running.dry_run:
        return say_plan(batch, model, options, show, stream)
    for failure in batch.failures:
        show.failed(failure)
    if not show.quiet and batch.done:
        _render.note(f"{len(batch.done)} of {len(found)} pictures are there already")
    prepare(batch)
    failures = [*batch.failures, *work(batch, model, asked, stream)]
    if len(found) == 1 and failures:
        raise failures[0].error
    if not show.quiet and len(found) > 1:
        made = len(batch.items) + len(batch.failures) - len(failures)
        _render.note(f"{made} made, {len(batch.done)} there already, {len(failures)} failed")
    if failures and len(failures) == len(found):
        return failures[0].error.exit_code
    return InputError.exit_code if failures else 0


def work(batch: Batch, model: Model, asked: Asked, stream: bytes | None) -> list[Failure]:
    """Run the plan with the engine that was asked for."""
    from yoda_cli.upscaling.batch.local import run_here
    from yoda_cli.upscaling.batch.plan import Events

    options, running, show = asked.options, asked.running, asked.show
    alone = len(batch.items) + len(batch.failures) == 1
    events = Events(show.finished, (lambda failure: None) if alone else show.failed)
    if not batch.items:
        return []
    if running.engine == "ray":
        from yoda_cli.upscaling.batch.ray import run_ray
        from yoda_cli.upscaling.pipeline import pipeline_of

        return run_ray(batch, options, asked.writing, events, running.address, running.jobs,
                       cut=pipeline_of(model).can_cut)  # fmt: skip
    if running.jobs > 1 and len(batch.items) > 1:
        from yoda_cli.upscaling.batch.processes import run_workers

        jobs = min(running.jobs, len(batch.items))
        return run_workers(batch, options, asked.writing, events, jobs,
                           fail_fast=running.fail_fast)  # fmt: skip
    watchers = Watchers(asked, model)
    return run_here(
        batch, model, options, asked.writing, events, watchers.observing, stream=stream,
        fail_fast=running.fail_fast, on_done=watchers.finish,
    )  # fmt: skip


class Watchers:
    """Progress, dump and report of one picture after another."""

    def __init__(self, asked: Asked, model: Model) -> None:
        from yoda_cli.models.calibration import costs_of

        self.asked, self.model = asked, model
        self.taken: set[Path] = set()
        self.current: dict[Path, Any] = {}
        if model.family is None:  # else the networks are read when stage one is done
            costs_of(model)  # measured before the first picture's time is taken

    @contextmanager
    def observing(self, item: Item) -> Iterator[Observer]:
        """The observer of one picture while it is computed."""
        from yoda_cli.reports.inspection import Wanted
        from yoda_cli.reports.page import Watcher
        from yoda_cli.upscaling.result import Observer

        inside, show = self.asked.inside, self.asked.show
        wanted = Wanted(*inside.named, every=inside.every)
        watcher = Watcher.of(item.source, inside.dump, wanted, inside.report, self.taken)
        self.current[item.source] = watcher
        with _render.progress(item.source.name, quiet=show.quiet, bar=show.bar) as bar:
            yield Observer(
                on_pass=watcher.on_pass,
                on_plan=bar.plan,
                on_call=bar.call,
                on_step=watcher.on_step,
                whole=watcher.is_watching,
            )

    def finish(self, done: Finished) -> None:
        """Write what is written at the end."""
        self.current.pop(done.source).finish(done, self.model)


def check_running(asked: Asked) -> None:
    """Refuse combinations that cannot work."""
    running, inside = asked.running, asked.inside
    if running.engine not in ENGINES:
        raise UsageError(f"engine {running.engine!r} is not allowed; use {' or '.join(ENGINES)}")
    if inside and (running.jobs > 1 or running.engine != "local"):
        raise UsageError("--dump and --report need one local worker: leave out -j and --engine")
    if inside.report is not None:
        from yoda_cli.reports.page import check_report

        if len(asked.inputs) != 1 or asked.inputs[0].is_dir():
            raise UsageError("--report is about one picture; name one")
        overwrite = asked.writing.existing == "overwrite"
        check_report(inside.report, asked.inputs[0], overwrite=overwrite)


def check_output(asked: Asked, count: int, *, is_folder: bool) -> None:
    """Refuse an output that cannot take the inputs."""
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
    elif count > 1 and not is_folder and not output.is_dir():
        raise UsageError(f"{count} inputs need a folder as output, and {shown(output)} is none")


def say_plan(
    batch: Batch, model: Model, options: UpscaleOptions, show: Show, stream: bytes | None
) -> int:
    """What would be done, one line or JSON object per picture."""
    from yoda_cli.upscaling.batch.inputs import STREAM
    from yoda_cli.upscaling.picture import look_ahead
    from yoda_cli.upscaling.streaming import as_it_will_run

    total, failed = 0.0, len(batch.failures)
    for failure in batch.failures:
        show.failed(failure)
    for item in batch.items:
        try:
            data = stream if item.source == STREAM else None
            seen, _ = look_ahead(item, model, as_it_will_run(item, model, options), data)
        except YodaError as error:
            failed += 1
            _render.note(f"yoda: {' '.join(str(error).split())}")
            continue
        seconds = (seen.forecast_seconds or 0.0) * item.frames
        total += seconds
        scale = item.scale or model.scale
        width, height = (max(1, round(n * scale)) for n in (item.width, item.height))
        record = {
            "schema": 1,
            "input": str(item.source),
            "output": str(item.target),
            "width": width,
            "height": height,
            "frames": item.frames,
            "planned_calls": seen.planned_calls,
            "dense_calls": seen.dense_calls,
            "blocks": len(seen.blocks),
            "forecast_seconds": round(seconds, 3),
        }
        line = f"{item.source} → {item.target}: {width}×{height}, about {seconds:.1f} s"
        typer.echo(json.dumps(record) if show.json_lines else line)
    if not show.quiet:
        there = f", {len(batch.done)} there already" if batch.done else ""
        _render.note(
            f"{len(batch.items)} to make{there}, about {total:.0f} s and "
            f"{batch.output_bytes / 1e6:.1f} MB; nothing was written"
        )
    return InputError.exit_code if failed else 0
