"""``yoda bench``: numbers a reader can reproduce."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from yoda_cli.cli import _early, _names, _render, _render_bars
from yoda_cli.cli._bench_speed import show_speed
from yoda_cli.cli._bench_tables import show
from yoda_cli.cli._downloads import agree
from yoda_cli.cli._options import (
    Channel,
    Device,
    Heads,
    Json,
    LowerBound,
    MetricNames,
    ModelName,
    NoProgress,
    Overwrite,
    Places,
    Quiet,
    Source,
    Steps,
    Yes,
    files_named,
    parse_denoise,
)
from yoda_cli.cli._room import check_room
from yoda_cli.config import STRENGTHS, UpscaleOptions
from yoda_cli.errors import InputError, WeightsError

if TYPE_CHECKING:
    from yoda_cli.evaluation.benchmark import Bench
    from yoda_cli.evaluation.methods import Method
    from yoda_cli.files.overwriting import Outputs
    from yoda_cli.models.model import Model
    from yoda_cli.weights import Watch

DEFAULT_PEERS = ("bicubic", "base", "plain")
WITHOUT_DIFFUSION = ("bicubic", "lanczos")
ADAPTIVE = "adaptive"  # of --ablate: it varies more than one setting


class BenchArguments(NamedTuple):
    """The command line of ``yoda bench``."""

    dataset: Annotated[
        list[str],
        typer.Option(
            "--dataset",
            help="sample, div2k, a set's name or a folder.",
            autocompletion=_names.complete_datasets,
        ),
    ]
    model: ModelName = "general"
    peer: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            help="bicubic, lanczos, base, plain, shuffled, faithful, a source, "
            "or a file spandrel reads (default: bicubic, base, plain).",
            autocompletion=_names.among((*_names.PEERS, *_names.SOURCES)),
        ),
    ] = None
    metric: MetricNames = None
    ablate: Annotated[
        str | None,
        typer.Option(
            help="Vary attention, lower-bound, steps, sampler, faithful, tile or adaptive."
        ),
    ] = None
    speed: Annotated[
        bool, typer.Option("--speed", help="Measure time and memory, not quality.")
    ] = False
    baseline: Annotated[
        str | None, typer.Option(help="Method that --speed compares with (default: the first).")
    ] = None
    limit: Annotated[int | None, typer.Option(help="Only the first N pictures.", min=1)] = None
    data_root: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where data sets are that yoda cannot download."),
    ] = None
    channel: Channel = "y"
    border: Annotated[
        int | None, typer.Option(help="Pixels cropped (default: the model's factor).")
    ] = None
    attention: Source = None
    heads: Heads = None
    lower_bound: LowerBound = None
    steps: Steps = None
    fidelity: Annotated[
        float | None,
        typer.Option(metavar="F", help="0: most detail … 1: smoothest (default: the model's)."),
    ] = None
    denoise: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="auto, none, light, strong or 0 … 1.",
            autocompletion=_names.among(("auto", *STRENGTHS)),
        ),
    ] = "auto"
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0
    device: Device = "auto"
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto"
    csv: Annotated[Path | None, typer.Option(help="Write every picture's row.")] = None
    html: Annotated[Path | None, typer.Option(help="Write one page.")] = None
    plots: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write charts there, as SVG.")
    ] = None
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what an earlier run measured.")
    ] = False
    overwrite: Overwrite = False
    yes: Yes = False
    as_json: Json = False
    quiet: Quiet = False
    no_progress: NoProgress = False
    places: Places = Places()


def bench(args: BenchArguments) -> int:
    """Compare ways to enlarge pictures whose large originals are known. A stopped run goes on."""
    _early.check_bench(args.dataset, args.model, args.peer, args.metric)
    check_room()
    from yoda_cli.evaluation.benchmark import document, run_bench
    from yoda_cli.evaluation.datasets import downloads_of_sets
    from yoda_cli.evaluation.files import Files, claim, write
    from yoda_cli.evaluation.methods import get_ready
    from yoda_cli.upscaling.checks import check_options
    from yoda_cli.upscaling.pipeline import downloads_of
    from yoda_cli.weights import Cache, load_registry

    options = options_of(args)
    check_options(options)
    known = load_registry(), Cache.default()
    sets = downloads_of_sets(args.dataset, args.data_root, *known)
    agree([*downloads_of(options), *sets], yes=args.yes)
    ready, question = prepare(args, options)
    named = [args.model, args.attention, *(args.peer or ())]
    outputs = outputs_of(question, named, overwrite=args.overwrite)
    files = Files(args.csv, args.html, args.plots)
    checks = claim(files, question, args.ablate, outputs)
    if args.speed:
        return show_speed(
            question, ready, options, args.baseline, as_json=args.as_json, quiet=args.quiet
        )
    journal = open_journal(question, ready, options, fresh=args.fresh, quiet=args.quiet)
    get_ready(ready)
    rows = run_bench(question, journal, on_row=lambda row: say_row(row, quiet=args.quiet))
    found = document(question, rows, ready, shlex.join(["yoda", *sys.argv[1:]]))
    write(found, rows, question, args.ablate, files, checks)
    show(found, question, as_json=args.as_json)
    if found["failed"]:
        for row in found["failed"]:
            _render.fault(f"{row['dataset']}/{row['picture']}: {row['error']}")
        return InputError.exit_code
    return 0


def options_of(args: BenchArguments) -> UpscaleOptions:
    """The settings that the methods share."""
    return UpscaleOptions(
        model=args.model,
        attention=args.attention,
        heads=args.heads,
        seed=args.seed,
        steps=args.steps,
        lower_bound=args.lower_bound,
        fidelity=args.fidelity,
        denoise=parse_denoise(args.denoise),
        device=args.device,
        precision=args.precision,
    )


def prepare(args: BenchArguments, options: UpscaleOptions) -> tuple[Model, Bench]:
    """Fetch and check everything before the first picture."""
    from yoda_cli.evaluation.benchmark import Bench
    from yoda_cli.evaluation.datasets import find_dataset
    from yoda_cli.evaluation.scores import DEFAULT, find_metrics, frame_of
    from yoda_cli.upscaling.pipeline import get_model
    from yoda_cli.weights import Cache, load_registry

    known, cache = load_registry(), Cache.default()
    with _render_bars.download(quiet=args.quiet, bar=not args.no_progress) as watch:
        model = get_model(options, watch)
        scale = model.scale
        frame = frame_of(args.channel, scale if args.border is None else args.border)
        methods = methods_of(args.ablate, args.peer, options, model, watch)
        sets = [
            find_dataset(name, scale, args.data_root, known, cache, watch)
            for name in dict.fromkeys(args.dataset)
        ]
        found, missing = find_metrics(args.metric or DEFAULT, known, cache, watch)
    refuse_missing(missing, asked=args.metric is not None)
    crops = args.html is not None
    return model, Bench(sets, methods, found, frame, scale, args.limit, crops)


def methods_of(
    ablate: str | None, peers: Sequence[str] | None, options: UpscaleOptions, model: Model,
    watch: Watch,
) -> list[Method]:  # fmt: skip
    """The ways to enlarge that are compared; one setting varied comes before other methods."""
    from yoda_cli.evaluation.adaptive import adaptive_ablation
    from yoda_cli.evaluation.methods import ablation, make_method, own_method

    if ablate is None:
        methods = [own_method("yoda", options, model, watch)]
        usual = DEFAULT_PEERS if model.diffuses else WITHOUT_DIFFUSION
        names = list(dict.fromkeys(usual if peers is None else peers))
    else:
        methods = (
            adaptive_ablation(options, model) if ablate == ADAPTIVE
            else ablation(ablate, options, model, watch)
        )  # fmt: skip
        names = list(peers or ())
    return methods + [make_method(name, options, model, watch) for name in names]


def open_journal(
    question: Bench, model: Model, options: UpscaleOptions, *, fresh: bool, quiet: bool
) -> Any:
    """What an earlier run of the same question measured."""
    from yoda_cli.evaluation.benchmark import journal_path
    from yoda_cli.evaluation.journal import Journal
    from yoda_cli.weights import Cache

    def say(reason: str) -> None:
        if not quiet:
            _render.note(f"{reason}; a stopped run begins again (YODA_CACHE_DIR is another place)")

    path = journal_path(Cache.default().root, question, model, options)
    return Journal.open(path, say, fresh=fresh)


def say_row(row: Mapping[str, Any], *, quiet: bool) -> None:
    """One line per finished row."""
    if not quiet and "error" not in row:
        numbers = ", ".join(
            f"{name} {row[name]:.4g}" for name in ("psnr", "texture") if row.get(name) is not None
        )
        _render.note(f"{row['dataset']}/{row['picture']} {row['method']}: {numbers}")


def outputs_of(
    question: Bench, named: Sequence[str | None], *, overwrite: bool
) -> Outputs:  # fmt: skip
    """What the command reads, and may therefore never write."""
    from yoda_cli.files.overwriting import Outputs

    pairs = [pair for dataset in question.datasets for pair in dataset.pairs]
    read = [path for pair in pairs for path in (pair.hr, pair.lr) if path is not None]
    return Outputs("overwrite" if overwrite else "own", [*read, *files_named(*named)])


def refuse_missing(missing: Sequence[str], *, asked: bool) -> None:
    """A metric that was asked for by name and cannot be had ends the command."""
    if missing and asked:
        raise WeightsError(missing[0].replace(" is left empty", "", 1))
    for line in missing:
        _render.note(line)
