"""``yoda attention``: where a run would look, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from yoda_cli.cli import _render, _render_bars
from yoda_cli.cli._downloads import agree
from yoda_cli.cli._options import (
    Device,
    Heads,
    Inputs,
    JsonLines,
    LowerBound,
    ModelName,
    NoProgress,
    Overwrite,
    Places,
    Quiet,
    Source,
    Steps,
    Yes,
    files_named,
)
from yoda_cli.cli._room import check_room
from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import InputError, UsageError, YodaError

if TYPE_CHECKING:
    from yoda_cli.reports.attention_maps import Looked, MapOptions

SHOWN_STEPS = 12
DARK = 0.6  # the largest value of a map that looks dark as a picture


class AttentionArguments(NamedTuple):
    """The command line of ``yoda attention``."""

    inputs: Inputs
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File or folder for what is written.")
    ] = None
    source: Source = None
    heads: Heads = None
    save_map: Annotated[
        bool, typer.Option("--save-map", help="Write the map as a grey picture.")
    ] = False
    map_format: Annotated[str, typer.Option("--format", help="Of the map: png, png16 or npy.")] = (
        "png"
    )
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write the map in colours over the picture.")
    ] = False
    grid: Annotated[
        bool, typer.Option("--grid", help="Write one sheet: all heads, or all sources.")
    ] = False
    masks: Annotated[
        str | None,
        typer.Option(help="Write which pixels steps at these times refine: 900,500,300."),
    ] = None
    model: ModelName = "general"
    lower_bound: LowerBound = None
    steps: Steps = None
    device: Device = "auto"
    overwrite: Overwrite = False
    json_lines: JsonLines = False
    quiet: Quiet = False
    no_progress: NoProgress = False
    yes: Yes = False
    places: Places = Places()


def attention(args: AttentionArguments) -> int:
    """Show where detail would be added first, without adding it."""
    check_room()
    from yoda_cli.files.overwriting import Outputs
    from yoda_cli.reports.attention_maps import is_file_name, look
    from yoda_cli.upscaling.batch.inputs import find_inputs
    from yoda_cli.upscaling.checks import check_options
    from yoda_cli.upscaling.pipeline import downloads_of, get_model

    output, wanted = args.output, wanted_of(args)
    options = UpscaleOptions(
        model=args.model, attention=args.source, heads=args.heads, lower_bound=args.lower_bound,
        steps=args.steps, device=args.device,
    )  # fmt: skip
    check_options(options)
    found = find_inputs(args.inputs, None, recursive=False, output=None)
    if output is not None and is_file_name(output):
        check_file(output, wanted.names(), len(found))
    agree(downloads_of(options), yes=args.yes)
    with _render_bars.download(quiet=args.quiet, bar=not args.no_progress) as watch:
        ready = get_model(options, watch)
    done: list[Looked] = []
    failures: list[YodaError] = []
    inputs = [*(one.path for one in found), *files_named(args.model, args.source)]
    outputs = Outputs("overwrite" if args.overwrite else "own", inputs)
    for path in (one.path for one in found):
        try:
            done.append(look(path, output, ready, options, wanted, outputs))
        except YodaError as error:
            if len(found) == 1:
                raise
            failures.append(error)
            _render.fault(error)
    show(done, json_lines=args.json_lines, quiet=args.quiet, wrote=bool(wanted))
    if failures:
        return failures[0].exit_code if len(failures) == len(found) else InputError.exit_code
    return 0


def wanted_of(args: AttentionArguments) -> MapOptions:
    """What is to be written. Raises UsageError for a format or times that cannot be meant."""
    from yoda_cli.reports.attention_maps import MAP_FORMATS, MapOptions

    kind = args.map_format
    if kind not in MAP_FORMATS:
        raise UsageError(f"format {kind!r} is not allowed; use {', '.join(MAP_FORMATS)}")
    wanted = MapOptions(
        kind if args.save_map else "", args.overlay, args.grid, parse_steps(args.masks)
    )
    if args.output is None or wanted:
        return wanted
    # a place was named, so something is to be there
    return MapOptions("npy" if args.output.suffix.lower() == ".npy" else kind)


def check_file(output: Path, names: Sequence[str], pictures: int) -> None:
    """Refuse one file's name for several files, or for a file of another kind."""
    if len(names) * pictures > 1:
        raise UsageError(
            f"{output} is one file, and {len(names) * pictures} are wanted; give a folder"
        )
    suffix = Path(names[0]).suffix
    if output.suffix.lower() != suffix:
        raise UsageError(f"{output} should end in {suffix}")


def parse_steps(text: str | None) -> tuple[int, ...]:
    """``900,500`` as numbers."""
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts) or (text is not None and not parts):
        raise UsageError(f"masks {text!r} is not allowed; give values of t, such as 900,500")
    return tuple(int(part) for part in parts)


def show(done: Sequence[Looked], *, json_lines: bool, quiet: bool, wrote: bool) -> None:
    """Paths or JSON on stdout; the table beside them, or as the result itself."""
    for looked in done:
        if not quiet:
            for notice in looked.notices:
                _render.note(f"{looked.source.name}: {notice}")
            if wrote and looked.largest < DARK:
                _render.note(
                    f"{looked.source.name}: the map reaches {looked.largest:.2f} of 1, so it looks "
                    "dark: most of the picture is refined in the last steps only"
                )
        if json_lines:
            width, height = looked.size
            record = asdict(looked) | {"width": width, "height": height}
            del record["size"]
            record["source"] = str(looked.source)
            record["written"] = [str(path) for path in looked.written]
            _render.document({"schema": 1, **record})
        else:
            for path in looked.written:
                _render.place(path)
    if json_lines or (wrote and quiet):
        return
    _render.table(
        "",
        ("picture", "attention", "mean", "from … to", "refined per step", "tiles"),
        [row(looked) for looked in done],
        to_stderr=wrote,
    )


def row(looked: Looked) -> tuple[str, ...]:
    """One picture's line of the table."""
    stride = -(-len(looked.steps) // SHOWN_STEPS)
    picked = [s for i, s in enumerate(looked.steps) if i % stride == 0 or s.s == 0]
    return (
        looked.source.name,
        looked.attention,
        f"{looked.mean:.3f}",
        f"{looked.least:.2f} … {looked.largest:.2f}",
        " ".join(f"{100 * step.active_share:.0f}" for step in picked) + " %",
        f"{looked.planned_calls} of {looked.dense_calls}",
    )
