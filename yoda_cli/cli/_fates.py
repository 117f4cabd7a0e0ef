"""What ``yoda upscale`` says of each picture: that it was made, skipped, failed, or is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yoda_cli.cli import _render
from yoda_cli.cli._render_bars import spell
from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import InputError, YodaError
from yoda_cli.files import counted
from yoda_cli.files.notes import parse_notes
from yoda_cli.files.paths import is_file

if TYPE_CHECKING:
    from yoda_cli.models.model import Model
    from yoda_cli.upscaling.batch.plan import Batch, Failure
    from yoda_cli.upscaling.picture import Item

SCHEMA = 2  # of a line of --json
NAMED_AT_THE_END = 20  # failed pictures
#: Settings that change hardly a pixel.
IMMATERIAL = ("torch", "ncnn", "precision", "tile", "block", "batch", "device")
NAMED_SETTINGS = 4  # of a result that was replaced


class Replaced:
    """What stood where a result will stand, and was made with other settings."""

    def __init__(self, items: Sequence[Item]) -> None:
        from yoda_cli.images import read_provenance
        from yoda_cli.upscaling.batch.inputs import STREAM

        there = [item.target for item in items if item.target != STREAM and is_file(item.target)]
        self.before = {target: read_provenance(target) for target in there}

    def by(self, item: Item) -> dict[str, str]:
        """The settings of the replaced result that the new one, now written, does not share."""
        from yoda_cli.images import read_provenance

        before = self.before.get(item.target)
        after = read_provenance(item.target) if before else None
        if not before or not after:
            return {}
        old, new = settings_in(before), settings_in(after)
        return {name: value for name, value in old.items() if new.get(name, "") != value}


def settings_in(provenance: Mapping[str, str]) -> dict[str, str]:
    """Model, seed and settings that a file says it was made with."""
    said = parse_notes(provenance.get("settings", "{}"))
    own = {name: provenance.get(name, "") for name in ("model", "seed")}
    return own | {name: str(value) for name, value in said.items() if name not in IMMATERIAL}


def by_content(item: Item) -> list[str]:
    """A notice where a file's name does not say what its bytes are."""
    from yoda_cli.images import peek
    from yoda_cli.images.formats import BY_SUFFIX, SUFFIXES
    from yoda_cli.upscaling.batch.inputs import STREAM

    suffix = item.source.suffix.lower()
    if item.source == STREAM or suffix in SUFFIXES - set(BY_SUFFIX):  # HEIF is only read
        return []
    try:
        kind = peek(item.source).kind
    except (OSError, YodaError):  # gone meanwhile
        return []
    return [] if BY_SUFFIX.get(suffix) == kind else [f"is {kind} by its content"]


def details_of(record: Mapping[str, Any]) -> str:
    """What ``-v`` adds to the line of a picture."""
    blocks = f" in {record['blocks']} blocks" if record["blocks"] > 1 else ""
    calls = counted(record["calls"], "network call")
    return (
        f"{calls} of {record['planned_calls']} planned{blocks}, "
        f"{record['forecast_seconds']:.1f} s forecast, {record['peak_mb']} MB, "
        f"{record['precision']}"
    )


@dataclass(frozen=True)
class Show:
    """What is said of a finished picture, and where."""

    json_lines: bool
    quiet: bool
    bar: bool

    @property
    def waits(self) -> bool:
        """Whether a terminal is told of what takes a while before the first picture."""
        return self.bar and not self.quiet

    def finished(self, item: Item, record: Mapping[str, Any], replaced: Mapping[str, str]) -> None:
        """A picture was made; ``replaced`` are settings of another result that is gone."""
        from yoda_cli.upscaling.batch.inputs import STREAM
        from yoda_cli.upscaling.batch.record import line_of

        if replaced:
            record = {**record, "replaced": dict(replaced)}
        if _render.heard(quiet=self.quiet):
            say, name = partial(_render.note, quiet=self.quiet), item.source.name
            for notice in [*by_content(item), *record["notices"]]:
                say(f"{name}: {notice}")
            _render.detail(f"{name}: {details_of(record)}", quiet=self.quiet)
            say(f"{name}: {line_of(record)}")
            if replaced:
                some = list(replaced.items())[:NAMED_SETTINGS]
                words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in some)
                say(f"{name}: it replaces a result with {words}")
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


def sum_up(batch: Batch, failures: Sequence[Failure], *, quiet: bool) -> None:
    """The last lines of a run: how many were made, and which were not."""
    say = partial(_render.note, quiet=quiet)
    made = len(batch.items) + len(batch.failures) - len(failures)
    say(f"{made} made, {len(batch.done)} there already, {len(failures)} failed")
    for failure in failures[:NAMED_AT_THE_END]:
        say(f"failed: {failure.source}")
    if len(failures) > NAMED_AT_THE_END:
        say(f"and {len(failures) - NAMED_AT_THE_END} more")


def interrupted(made: int, batch: Batch) -> str:
    """What Ctrl-C left, and how to go on."""
    count = len(batch.items)
    if count == 1 and not made:
        return "nothing was written; the same command begins again"
    how = "goes on" if batch.manifests else "makes all again"
    return f"{made} of {count} made; the same command {how}"


def say_plan(
    batch: Batch, model: Model, options: UpscaleOptions, show: Show, stream: bytes | None
) -> int:
    """What would be done, one line or JSON object per picture."""
    from yoda_cli.upscaling.batch.run import forecast_of

    for failure in batch.failures:
        show.failed(failure)
    for item in batch.done:
        show.skipped(item)
    asks = [(item.source, partial(forecast_of, item, model, options, stream))
            for item in batch.items]  # fmt: skip
    total, failed = say_planned(asks, show)
    there = f", {len(batch.done)} there already" if batch.done else ""
    _render.note(
        f"{len(batch.items)} to make{there}, about {spell(total)} and "
        f"{batch.output_bytes / 1e6:.1f} MB; nothing was written", quiet=show.quiet
    )  # fmt: skip
    return InputError.exit_code if failed or batch.failures else 0


def say_planned(
    asks: Sequence[tuple[Path, Callable[[], dict[str, Any]]]], show: Show
) -> tuple[float, int]:
    """Say what ``asks`` answer of each source: seconds in all, and how many failed."""
    from yoda_cli.upscaling.batch.plan import Failure

    total, failed = 0.0, 0
    for source, ask in asks:
        try:
            record = ask()
        except YodaError as error:
            failed += 1
            show.failed(Failure(source, error))
            continue
        seconds = record["forecast_seconds"]
        total += seconds or 0.0
        if show.json_lines:
            _render.document(record)
        else:
            size = f"{record['width']}×{record['height']}"
            time = "" if seconds is None else f", about {seconds:.1f} s{range_of(record)}"
            _render.result(f"{source} → {record['output']}: {size}{time}")
    return total, failed


def range_of(record: Mapping[str, Any]) -> str:
    """Between which bounds a forecast lies, where the run decides on its way."""
    if "calls_range" not in record:
        return ""
    (least, most), (soon, late) = record["calls_range"], record["seconds_range"]
    calls = record["planned_calls"]
    return f" ({soon:.1f} to {late:.1f} s), {counted(calls, 'tile')} ({least} to {most})"


def label_of(batch: Batch, model: Model) -> str:
    """What a picture alone is called while it is made, with the size it will have."""
    if len(batch.items) != 1:
        return ""
    (item,) = batch.items
    scale = item.scale or float(model.scale)
    width, height = (max(1, round(side * scale)) for side in (item.width, item.height))
    return f"{item.source.name} → {width}×{height}"
