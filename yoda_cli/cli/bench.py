"""``yoda bench``: numbers a reader can reproduce."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yoda_cli.cli import _names, _render
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
    files_named,
)
from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import InputError, UsageError, WeightsError

if TYPE_CHECKING:
    from yoda_cli.evaluation.benchmark import Bench
    from yoda_cli.files.overwriting import Outputs
    from yoda_cli.models.model import Model

DEFAULT_PEERS = ("bicubic", "base", "plain")
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
    as_json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> int:  # fmt: skip
    """Compare ways to enlarge on data sets with a known truth; a stopped run goes on."""
    from yoda_cli.evaluation.benchmark import document, run_bench
    from yoda_cli.evaluation.files import Files, claim, write
    from yoda_cli.evaluation.methods import get_ready
    from yoda_cli.upscaling.checks import check_options

    options = UpscaleOptions(
        model=model,
        attention=attention,
        heads=heads,
        seed=seed,
        steps=steps,
        lower_bound=lower_bound,
        device=device,
        precision=precision,
    )
    check_options(options)
    ready, question = prepare(
        dataset, options, peer, metric, ablate, limit, data_root, channel, border,
        quiet=quiet, bar=not no_progress, crops=html is not None,
    )  # fmt: skip
    outputs = outputs_of(question, [model, attention, *(peer or ())], overwrite=overwrite)
    files = Files(csv, html, plots)
    checks = claim(files, question, ablate, outputs)
    if speed:
        return show_speed(question, baseline, as_json=as_json, quiet=quiet)
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
    with _render.download(quiet=quiet, bar=bar) as watch:
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
            wanted = DEFAULT_PEERS if peers is None else peers
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


def show(found: Mapping[str, Any], question: Bench, *, as_json: bool) -> None:
    """One JSON document, or a table per data set with what its columns mean."""
    from yoda_cli.evaluation.adaptive import rival_lines
    from yoda_cli.evaluation.report import published_lines

    if as_json:
        _render.document(found, indent=1)
        return
    names = list(found["definitions"])
    columns = ("method", "pictures", *names, "calls", "of", "GFLOP", "seconds", "peak MB")
    timed = any(line["attention_seconds"] is not None for line in found["summary"])
    columns += ("maps per second",) if timed else ()
    for dataset in dict.fromkeys(line["dataset"] for line in found["summary"]):
        rows = [
            (
                line["method"],
                str(line["pictures"]),
                *(_render.number(line[name]) for name in names),
                f"{line['calls']:.1f}",
                f"{line['dense_calls']:.1f}",
                _render.number(line["gflop"]),
                f"{line['seconds']:.2f}",
                str(line["peak_mb"]),
                *([throughput(line["attention_seconds"])] if timed else []),
            )
            for line in found["summary"]
            if line["dataset"] == dataset
        ]
        _render.table(f"{dataset}, ×{found['scale']}", columns, rows)
    for name, text in found["definitions"].items():
        _render.result(f"{name}: {text}")
    for line in (*rival_lines(found), *published_lines(found, question)):
        _render.result(line)


def throughput(seconds: float | None) -> str:
    """Pictures per second."""
    return f"{1 / seconds:.1f}" if seconds else ""


def show_speed(question: Bench, baseline: str | None, *, as_json: bool, quiet: bool) -> int:
    """Time the methods on the first picture at several sizes."""
    from yoda_cli.evaluation.benchmark import load_pair
    from yoda_cli.evaluation.speed import environment, measure

    names = [method.name for method in question.methods]
    if baseline is not None and baseline not in names:
        raise UsageError(
            f"baseline {baseline!r} is no method of this run; there are {', '.join(names)}"
        )
    # The baseline first.
    rivals = [method for method in question.methods if method.knowing is None]
    methods = sorted(rivals, key=lambda method: method.name != baseline)
    _, lr = load_pair(question.datasets[0].pairs[0], question.scale)
    sizes = (64, 128, 192, 256)
    say = (lambda line: None) if quiet else _render.note
    timings = measure(methods, lr, sizes, question.scale, say)
    if as_json:
        record = {"schema": 1, "environment": environment(), "baseline": methods[0].name}
        _render.document(record | {"timings": [asdict(t) for t in timings]}, indent=1)
        return 0
    columns = ("LR", "method", "median s", "min", "max", "ratio", "s per MP", "GFLOP", "calls")
    rows = [
        (
            f"{t.width}×{t.height}",
            t.method,
            f"{t.median:.3f}",
            f"{t.fastest:.3f}",
            f"{t.slowest:.3f}",
            f"{t.ratio:.3f}",
            f"{t.per_megapixel:.2f}",
            _render.number(t.gflop),
            str(t.calls),
        )
        for t in timings
    ]
    _render.table(f"ratios to {methods[0].name}", columns, rows)
    _render.result(", ".join(f"{key} {value}" for key, value in environment().items() if value))
    return 0


def refuse_missing(missing: Sequence[str], *, asked: bool) -> None:
    """A metric that was asked for by name and cannot be had ends the command."""
    if missing and asked:
        raise WeightsError(missing[0].replace(" is left empty", "", 1))
    for line in missing:
        _render.note(line)
