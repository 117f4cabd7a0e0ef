"""``yoda metrics``: results against their truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from yoda_cli.cli import _render, _render_bars
from yoda_cli.cli._options import (
    Channel,
    Json,
    MetricNames,
    NoProgress,
    Places,
    Quiet,
)
from yoda_cli.cli._room import check_room
from yoda_cli.cli.bench import refuse_missing
from yoda_cli.errors import InputError, UsageError
from yoda_cli.files import shown
from yoda_cli.files.paths import is_folder

if TYPE_CHECKING:
    from yoda_cli.evaluation.metric_table import Frame, Metric


class MetricsArguments(NamedTuple):
    """The command line of ``yoda metrics``."""

    sr: Annotated[Path, typer.Argument(help="A picture that was enlarged, or a folder of them.")]
    hr: Annotated[Path, typer.Argument(help="The original, or a folder with the same names.")]
    metric: MetricNames = None
    channel: Channel = "y"
    border: Annotated[int, typer.Option(help="Pixels cropped on each side.")] = 4
    scale: Annotated[int, typer.Option(help="By how much lr-psnr makes both smaller.")] = 4
    as_json: Json = False
    quiet: Quiet = False
    no_progress: NoProgress = False
    places: Places = Places()


def metrics(args: MetricsArguments) -> int:
    """Measure how near enlarged pictures are to their originals: two files, or two folders."""
    check_room()
    from yoda_cli.evaluation.scores import DEFAULT, definition, find_metrics, frame_of
    from yoda_cli.weights import Cache, load_registry

    if args.scale < 1:
        raise UsageError(f"scale {args.scale} is not allowed; give 1 or more")
    files = files_of(args.sr, args.hr, args.scale)
    wanted = args.metric or [name for name in DEFAULT if name not in ("seam", "lr-psnr")]
    with _render_bars.download(quiet=args.quiet, bar=not args.no_progress) as watch:
        found, missing = find_metrics(wanted, load_registry(), Cache.default(), watch)
    refuse_missing(missing, asked=args.metric is not None)
    frame = frame_of(args.channel, args.border)
    rows = [row_of(*each, found, frame, args.scale) for each in files]
    if args.as_json:
        words = {m.name: definition(m, frame) for m in found}
        _render.document({"schema": 1, "definitions": words, "rows": rows}, indent=1)
        return 0
    names = [m.name for m in found]
    lines = [(row["picture"], *(_render.number(row[name]) for name in names)) for row in rows]
    _render.table("", ("picture", *names), lines)
    for m in found:
        _render.result(f"{m.name}: {definition(m, frame)}")
    return 0


def files_of(sr: Path, hr: Path, scale: int) -> list[tuple[str, Path, Path]]:
    """(name, result, truth) of two files, or of each pair in two folders."""
    from yoda_cli.evaluation.datasets import pair_by_name

    if is_folder(sr) != is_folder(hr):
        raise UsageError("give two files or two folders")
    if not is_folder(hr):
        return [(sr.stem, sr, hr)]
    pairs = pair_by_name(hr, sr, scale)
    if alone := [pair for pair in pairs if pair.problem]:
        raise InputError(f"{alone[0].name}: {alone[0].problem} ({len(alone)} such pictures)")
    return [(pair.name, pair.lr, pair.hr) for pair in pairs if pair.lr is not None]


def row_of(
    name: str, result: Path, truth: Path, metrics: Sequence[Metric], frame: Frame, scale: int
) -> dict[str, Any]:
    """One picture's measures; ``lr-psnr`` compares both ``scale`` times smaller."""
    from yoda_cli.evaluation.benchmark import resized_down
    from yoda_cli.evaluation.metric_table import Sample
    from yoda_cli.evaluation.metrics import quantise
    from yoda_cli.evaluation.scores import measure_all
    from yoda_cli.images import read_picture

    x, y = read_picture(result).rgb, quantise(read_picture(truth).rgb)
    check_sizes(result, x.shape, y.shape, frame.border)
    lr = resized_down(y, scale) if min(y.shape[-2:]) >= scale else y
    return {"picture": name, **measure_all(Sample(x, y, lr, ((), ())), metrics, frame)}


def check_sizes(result: Path, ours: Sequence[int], theirs: Sequence[int], border: int) -> None:
    """Refuse what cannot be compared; shapes are (1, 3, H, W)."""
    height, width = theirs[-2:]
    if tuple(ours) != tuple(theirs):
        made = f"{ours[-1]}×{ours[-2]}"
        raise InputError(f"{shown(result)} is {made} pixels, and its truth {width}×{height}")
    if 2 * border >= min(height, width):
        size = f"{width}×{height} pixels"
        raise InputError(f"{shown(result)}: a border of {border} leaves nothing of {size}")
