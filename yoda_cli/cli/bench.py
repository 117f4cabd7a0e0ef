"""``yoda bench``: numbers a reader can reproduce."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yoda_cli.cli import _early, _names, _render, _render_bars
from yoda_cli.cli._bench_speed import show_speed
from yoda_cli.cli._bench_tables import show
from yoda_cli.cli._downloads import agree
from yoda_cli.cli._options import (
    CacheDir,
    Channel,
    Device,
    Heads,
    Json,
    LowerBound,
    MetricNames,
    ModelName,
    NoProgress,
    Offline,
    Overwrite,
    Quiet,
    RegistryFile,
    Source,
    Steps,
    Yes,
    files_named,
    parse_denoise,
)
from yoda_cli.cli._room import check_room
from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import InputError, WeightsError

if TYPE_CHECKING:
    from yoda_cli.evaluation.benchmark import Bench
    from yoda_cli.files.overwriting import Outputs
    from yoda_cli.models.model import Model

DEFAULT_PEERS = ("bicubic", "base", "plain")
WITHOUT_DIFFUSION = ("bicubic", "lanczos")
ADAPTIVE = "adaptive"  # of --ablate: it varies more than one setting


def bench(
    dataset: Annotated[
        list[str],
        typer.Option(
            "--dataset", help="sample, div2k, a set's name or a folder.",
            autocompletion=_names.complete_datasets,
        ),
    ],
    model: ModelName = "general",
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", help="bicubic, lanczos, base, plain, shuffled, faithful, a source, "
                     "or a file spandrel reads (default: bicubic, base, plain).",
                     autocompletion=_names.among((*_names.PEERS, *_names.SOURCES))),
    ] = None,
    metric: MetricNames = None,
    ablate: Annotated[
        str | None,
        typer.Option(
            help="Vary attention, lower-bound, steps, sampler, faithful, tile or adaptive."
        ),
    ] = None,
    speed: Annotated[bool, typer.Option("--speed", help="Time the methods instead.")] = False,
    baseline: Annotated[
        str | None, typer.Option(help="Method that --speed compares with (default: the first).")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N pictures.", min=1)] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of data sets that are not downloaded.")
    ] = None,
    channel: Channel = "y",
    border: Annotated[
        int | None, typer.Option(help="Pixels cropped (default: the model's factor).")
    ] = None,
    attention: Source = None,
    heads: Heads = None,
    lower_bound: LowerBound = None,
    steps: Steps = None,
    fidelity: Annotated[
        float | None,
        typer.Option(metavar="F", help="0: most detail … 1: smoothest (default: the model's).")
    ] = None,
    denoise: Annotated[
        str, typer.Option(metavar="HOW", help="auto, none, light, strong or 0 … 1.",
                          autocompletion=_names.among(("auto", *_names.STRENGTHS)))
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    csv: Annotated[Path | None, typer.Option(help="Write every picture's row.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one page.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the charts here, as SVG.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what an earlier run measured.")
    ] = False,
    overwrite: Overwrite = False,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> int:  # fmt: skip
    """Compare ways to enlarge on data sets with a known truth; a stopped run goes on."""
    _early.check_bench(dataset, model, peer, metric)
    check_room()
    from yoda_cli.evaluation.benchmark import document, run_bench
    from yoda_cli.evaluation.datasets import downloads_of_sets
    from yoda_cli.evaluation.files import Files, claim, write
    from yoda_cli.evaluation.methods import get_ready
    from yoda_cli.upscaling.checks import check_options
    from yoda_cli.upscaling.pipeline import downloads_of
    from yoda_cli.weights import Cache, load_registry

    options = UpscaleOptions(
        model=model,
        attention=attention,
        heads=heads,
        seed=seed,
        steps=steps,
        lower_bound=lower_bound,
        fidelity=fidelity,
        denoise=parse_denoise(denoise),
        device=device,
        precision=precision,
    )
    check_options(options)
    known = load_registry(), Cache.default()
    agree([*downloads_of(options), *downloads_of_sets(dataset, data_root, *known)], yes=yes)
    ready, question = prepare(
        dataset, options, peer, metric, ablate, limit, data_root, channel, border,
        quiet=quiet, bar=not no_progress, crops=html is not None,
    )  # fmt: skip
    outputs = outputs_of(question, [model, attention, *(peer or ())], overwrite=overwrite)
    files = Files(csv, html, plots)
    checks = claim(files, question, ablate, outputs)
    if speed:
        return show_speed(question, ready, options, baseline, as_json=as_json, quiet=quiet)
    journal = open_journal(question, ready, options, fresh=fresh)
    get_ready(ready)
    rows = run_bench(question, journal, on_row=lambda row: say_row(row, quiet=quiet))
    found = document(question, rows, ready, shlex.join(["yoda", *sys.argv[1:]]))
    write(found, rows, question, ablate, files, checks)
    show(found, question, as_json=as_json)
    if found["failed"]:
        for row in found["failed"]:
            _render.fault(f"{row['dataset']}/{row['picture']}: {row['error']}")
        return InputError.exit_code
    return 0


def prepare(
    names: Sequence[str], options: UpscaleOptions, peers: Sequence[str] | None,
    metrics: Sequence[str] | None, ablate: str | None, limit: int | None, root: Path | None,
    channel: str, border: int | None, *, quiet: bool, bar: bool, crops: bool,
) -> tuple[Model, Bench]:  # fmt: skip
    """Fetch and check everything before the first picture."""
    from yoda_cli.evaluation.adaptive import adaptive_ablation
    from yoda_cli.evaluation.benchmark import Bench
    from yoda_cli.evaluation.datasets import find_dataset
    from yoda_cli.evaluation.methods import ablation, make_method, own_method
    from yoda_cli.evaluation.scores import DEFAULT, find_metrics, frame_of
    from yoda_cli.upscaling.pipeline import get_model
    from yoda_cli.weights import Cache, load_registry

    known, cache = load_registry(), Cache.default()
    with _render_bars.download(quiet=quiet, bar=bar) as watch:
        model = get_model(options, watch)
        scale = model.scale
        frame = frame_of(channel, scale if border is None else border)
        if ablate is not None:
            methods = (
                adaptive_ablation(options, model) if ablate == ADAPTIVE
                else ablation(ablate, options, model, watch)
            )  # fmt: skip
            methods += [make_method(name, options, model, watch) for name in peers or ()]
        else:
            methods = [own_method("yoda", options, model, watch)]
            usual = DEFAULT_PEERS if model.diffuses else WITHOUT_DIFFUSION
            wanted = usual if peers is None else peers
            methods += [make_method(name, options, model, watch) for name in dict.fromkeys(wanted)]
        sets = [
            find_dataset(name, scale, root, known, cache, watch) for name in dict.fromkeys(names)
        ]
        found, missing = find_metrics(metrics or DEFAULT, known, cache, watch)
    refuse_missing(missing, asked=metrics is not None)
    return model, Bench(sets, methods, found, frame, scale, limit, crops)


def open_journal(question: Bench, model: Model, options: UpscaleOptions, *, fresh: bool) -> Any:
    """What an earlier run of the same question measured."""
    from yoda_cli.evaluation.benchmark import Journal, journal_path
    from yoda_cli.weights import Cache

    path = journal_path(Cache.default().root, question, model, options)
    if fresh:
        path.unlink(missing_ok=True)
    return Journal.open(path)


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
