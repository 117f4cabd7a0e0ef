"""``yoda upscale``: pictures in, larger pictures out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yoda_cli.cli import _render
from yoda_cli.cli._options import (
    CacheDir,
    Device,
    Heads,
    Inputs,
    JsonLines,
    LowerBound,
    ModelName,
    Offline,
    Overwrite,
    Quiet,
    RegistryFile,
    Source,
    Steps,
)
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import UsageError, YodaError

if TYPE_CHECKING:
    from yoda_cli.batch import Finished
    from yoda_cli.models import Model
    from yoda_cli.report import Watcher


def upscale(
    inputs: Inputs,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File (one input) or existing folder.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option("-s", "--scale", help="Any factor up to 16 [model's own].")
    ] = None,
    model: ModelName = "general",
    attention: Source = None,
    heads: Heads = None,
    lower_bound: LowerBound = None,
    steps: Steps = None,
    sampler: Annotated[str | None, typer.Option(help="ddim, ddpm, ddpm-sr3 or dpm++.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another texture.")] = 0,
    fidelity: Annotated[
        float, typer.Option(help="0: full sampled detail … 1: the smooth regression picture.")
    ] = 0.0,
    denoise: Annotated[
        str, typer.Option(help="How degraded the picture is: auto, or 0 (clean) … 1.")
    ] = "auto",
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    tile: Annotated[
        str, typer.Option("-t", "--tile", help="auto, 0 (none) or a core size in output pixels.")
    ] = "auto",
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Run the paper's printed eqs. 9 and 11.")
    ] = False,
    skip: Annotated[
        bool, typer.Option("--skip/--no-skip", help="Skip idle tiles (the same result).")
    ] = True,
    overwrite: Overwrite = False,
    quality: Annotated[
        int | None, typer.Option(help="JPEG, WebP and AVIF quality [95].", min=1, max=100)
    ] = None,
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Keep nothing but pixels and colour profile.")
    ] = False,
    dump: Annotated[
        Path | None, typer.Option(help="Folder for a look inside: maps, masks, steps.")
    ] = None,
    save_attention: Annotated[
        bool, typer.Option("--save-attention", help="Dump the map (all three if none is named).")
    ] = False,
    save_masks: Annotated[bool, typer.Option("--save-masks", help="Dump every M(t).")] = False,
    save_steps: Annotated[
        bool, typer.Option("--save-steps", help="Dump every state and estimate.")
    ] = False,
    every: Annotated[int, typer.Option(help="Dump every N-th step, and the last.", min=1)] = 1,
    report: Annotated[
        Path | None, typer.Option(help="Write one HTML page about the run (one input).")
    ] = None,
    json_lines: JsonLines = False,
    quiet: Quiet = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> int:
    """Enlarge pictures by masked diffusion. Without -o a result stands beside its input."""
    options = UpscaleOptions(
        scale=scale,
        model=model,
        attention=attention,
        heads=heads,
        lower_bound=lower_bound,
        steps=steps,
        sampler=sampler,
        seed=seed,
        fidelity=fidelity,
        denoise=parse_denoise(denoise),
        device=device,
        precision=precision,
        tile=parse_tile(tile),
        faithful=faithful,
        skip=skip,
    )
    writing = WriteOptions(overwrite=overwrite, quality=quality, strip_metadata=strip_metadata)
    show = Show(json_lines=json_lines, quiet=quiet, bar=not no_progress)
    named = (save_attention, save_masks, save_steps)
    if any(named) and dump is None:
        raise UsageError("--save-attention, --save-masks and --save-steps need --dump FOLDER")
    inside = Inside(dump, named if any(named) else (True, True, True), every, report)
    if report is not None and len(inputs) != 1:
        raise UsageError(f"--report is about one picture; {len(inputs)} were given")
    return upscale_files(inputs, output, options, writing, show, inside)


def upscale_files(
    inputs: Sequence[Path],
    output: Path | None,
    options: UpscaleOptions,
    writing: WriteOptions,
    show: Show,
    inside: Inside,
) -> int:
    """One input after another; a bad one does not stop the rest."""
    from yoda_cli.batch import check_inputs, upscale_file
    from yoda_cli.limits import check_options
    from yoda_cli.models import find_model
    from yoda_cli.passes import Observer
    from yoda_cli.report import check_report

    check_options(options)
    check_inputs(inputs, output)
    if inside.report is not None:
        check_report(inside.report, inputs[0], overwrite=writing.overwrite)
    with _render.download(quiet=show.quiet) as watch:
        model = find_model(options, watch)
    failures: list[YodaError] = []
    taken: set[Path] = set()
    for source in dict.fromkeys(inputs):
        with _render.progress(source.name, quiet=show.quiet, bar=show.bar) as bar:
            try:
                watcher = inside.watcher(source, taken)
                observer = Observer(
                    on_pass=watcher.on_pass,
                    on_plan=bar.plan,
                    on_call=bar.call,
                    on_step=watcher.on_step,
                    whole=watcher.is_watching,
                )
                done = upscale_file(source, output, model, options, writing, observer, taken)
                watcher.finish(done, model, done.options)
            except YodaError as error:
                if len(inputs) == 1:
                    raise
                failures.append(error)
                _render.note(f"yoda: {' '.join(str(error).split())}")
                continue
        show.finished(done, model)
    return failures[0].exit_code if len(failures) == len(inputs) else 4 if failures else 0


@dataclass(frozen=True)
class Inside:
    """What is kept of how a picture came about; ``named`` is (attention, masks, steps)."""

    dump: Path | None
    named: tuple[bool, bool, bool]
    every: int
    report: Path | None

    def watcher(self, source: Path, taken: set[Path]) -> Watcher:
        """The observer of one picture."""
        from yoda_cli.inspection import Wanted
        from yoda_cli.report import Watcher

        wanted = Wanted(*self.named, every=self.every)
        return Watcher.of(source, self.dump, wanted, self.report, taken)


@dataclass(frozen=True)
class Show:
    """What is said of a finished picture, and where."""

    json_lines: bool
    quiet: bool
    bar: bool

    def finished(self, done: Finished, model: Model) -> None:
        width, height = done.size
        result = done.result
        if not self.quiet:
            for notice in done.notices:
                _render.note(f"{done.source.name}: {notice}")
            _render.note(
                f"{done.source.name}: {width}×{height}, {result.calls} network calls, "
                f"{result.seconds:.1f} s on {model.device.type}"
            )
        if not self.json_lines:
            typer.echo(done.target)
            return
        record = {
            "schema": 1,
            "input": str(done.source),
            "output": str(done.target),
            "model": model.name,
            "width": width,
            "height": height,
            "seed": done.options.seed,
            "denoise": done.options.denoise,
            "planned_calls": result.planned_calls,
            "calls": result.calls,
            "dense_calls": result.dense_calls,
            "seconds": round(result.seconds, 3),
            "device": str(model.device),
            "precision": str(model.precision).removeprefix("torch."),
        }
        typer.echo(json.dumps(record))


def parse_denoise(text: str) -> float | None:
    """``auto`` is None."""
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"denoise {text!r} is not allowed; give auto or 0 … 1") from None


def parse_tile(text: str) -> int | None:
    """``auto`` is None; otherwise output pixels."""
    if text == "auto":
        return None
    if not text.isdecimal():
        raise UsageError(f"tile {text!r} is not allowed; give auto, 0 or a number of pixels")
    return int(text)
