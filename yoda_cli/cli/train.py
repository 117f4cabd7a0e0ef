"""``yoda train``: a checkpoint from a folder of photographs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from yoda_cli.cli import _names, _render
from yoda_cli.cli._options import NoProgress, files_named
from yoda_cli.cli._room import check_room
from yoda_cli.errors import OutputError, UsageError
from yoda_cli.files import real, shown
from yoda_cli.files.paths import is_folder

if TYPE_CHECKING:
    from yoda_cli.config import Recipe
    from yoda_cli.training.loop import Status

GAIN = "gain"  # no recipe of a network that enlarges
STARTS = ("general", "face", "none")


class TrainArguments(NamedTuple):
    """The command line of ``yoda train``."""

    data: Annotated[Path, typer.Option(help="Folder of photographs (HR).")]
    out: Annotated[Path, typer.Option("-o", "--out", help="Run folder; an existing one goes on.")]
    recipe: Annotated[
        str,
        typer.Option(
            help="Recipe name; the stages that follow it are trained too.",
            autocompletion=_names.complete_recipes,
        ),
    ] = "general"
    model: Annotated[
        str | None,
        typer.Option(
            help="Whose steps --recipe gain learns to judge.",
            autocompletion=_names.complete_models,
        ),
    ] = None
    recipes: Annotated[
        Path | None, typer.Option(help="A recipes.toml of your own instead of the packaged one.")
    ] = None
    minutes: Annotated[float, typer.Option(help="Train this recipe alone, for so long in all.")] = (
        0.0
    )
    steps: Annotated[
        int, typer.Option(help="Train this recipe alone, for so many optimiser steps in all.")
    ] = 0
    batch: Annotated[int | None, typer.Option(help="Crops per step (recipe's own if left).")] = None
    init: Annotated[
        str | None,
        typer.Option(
            metavar="FROM",
            show_default=False,
            autocompletion=_names.among(STARTS),
            help="Start from a checkpoint, general, face or none (default: general, where the "
            "recipe has its network).",
        ),
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of crops, noise and first weights.")] = 0
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "Apache-2.0"
    about_data: Annotated[str, typer.Option(help="What the pictures are, for the model card.")] = ""
    no_progress: NoProgress = False


def train(args: TrainArguments) -> None:
    """Train a checkpoint; a run that was stopped goes on where it was."""
    check_room()
    if args.recipe == GAIN:
        train_regressor(args)
        return
    if args.model is not None:
        raise UsageError("--model is for --recipe gain; other recipes start from --init")
    from yoda_cli.devices.device import pick_device
    from yoda_cli.training.curriculum import train_stages

    data, out = args.data, args.out
    stages = stages_asked(args)
    start = start_of(args.init, stages[0])
    check_folders(data, [out] if len(stages) == 1 else [out / s.name for s in stages], start)
    _render.note(f"starts from {start.stem if start else 'nothing: that takes hours'}")
    about = args.about_data or str(data.name)
    with _render.training_line(bar=not args.no_progress) as line:
        line.show("reading the photographs …")
        best = train_stages(
            stages,
            data,
            out,
            device=pick_device(args.device),
            card={"name": args.recipe, "licence": args.licence, "data": about},
            init=start,
            on_status=lambda stage, status: line.show(
                f"{stage.name} · {describe(status)}", always=status.progress >= 1
            ),
        )
    _render.note(f"use it: yoda upscale photo.jpg --model {shlex.quote(str(best))}")
    _render.place(best)


def stages_asked(args: TrainArguments) -> list[Recipe]:
    """The recipe and those that follow it; the recipe alone where it is told how long to run."""
    from dataclasses import replace

    from yoda_cli.training.recipes import stages_of

    changes: dict[str, Any] = {"seed": args.seed}
    if args.batch is not None:
        changes["batch"] = args.batch
    stages = stages_of(args.recipe, args.recipes)
    if args.minutes or args.steps:
        stages = stages[:1]
        changes |= {"minutes": args.minutes, "steps": args.steps}
    return [replace(stage, train=replace(stage.train, **changes)) for stage in stages]


def train_regressor(args: TrainArguments) -> None:
    """The small network that judges the steps of a model while ``--adaptive`` runs."""
    if args.model is None:
        raise UsageError("--recipe gain needs the model whose steps are judged: --model NAME")
    if args.recipes is not None or args.init is not None or args.batch is not None:
        raise UsageError("--recipe gain does not read --recipes, --init and --batch")
    from yoda_cli.cli._render_bars import download
    from yoda_cli.config import UpscaleOptions
    from yoda_cli.files.overwriting import Outputs
    from yoda_cli.models.gain import is_regressor
    from yoda_cli.training.data import list_pictures
    from yoda_cli.training.gain import train_gain
    from yoda_cli.upscaling.pipeline import get_model

    data, out, bar = args.data, args.out, not args.no_progress
    pictures = list_pictures(data)
    if real(out) == real(data):
        raise OutputError(f"{shown(out)} holds the photographs; choose another --out")
    with download(quiet=False, bar=bar) as watch:
        network = get_model(UpscaleOptions(model=args.model, device=args.device), watch)
    target = out / f"{network.name}-gain.safetensors"
    if is_folder(out):
        outputs = Outputs("own", [*pictures, *files_named(args.model)])
        outputs.claim(target, "regressor", is_regressor)
    with _render.training_line(bar=bar) as line:
        ranked = train_gain(
            network, data, target, minutes=args.minutes, steps=args.steps, seed=args.seed,
            on_status=line.show,
        )  # fmt: skip
    _render.note(
        f"held-out steps are ranked with a correlation of {ranked.fidelity:.2f} by fidelity and "
        f"{ranked.realism:.2f} by realism"
    )
    _render.note(
        f"use it: yoda upscale photo.jpg --model {args.model} --adaptive --regressor {target}"
    )
    _render.place(target)


def start_of(asked: str | None, recipe: Recipe) -> Path | None:
    """The checkpoint that a run starts from; None for first weights by chance."""
    from yoda_cli.models.checkpoint import read_header
    from yoda_cli.weights import load_registry

    if asked == "none":
        return None
    if asked is not None and Path(asked).suffix:
        return Path(asked)
    model = load_registry().model(asked or STARTS[0])
    if not model.bundled:
        raise UsageError(f"{asked} is no checkpoint to start from; give a file, general or face")
    header = read_header(model.path)
    wanted = {key: value for key, value in recipe.net.items() if key != "injection"}
    fits = (header.backbone, dict(header.net)) == (recipe.backbone, wanted)
    return model.path if asked is not None or fits else None


def check_folders(data: Path, folders: list[Path], init: Path | None) -> None:
    """Refuse to train into a folder that holds what is no run's, before any work."""
    from yoda_cli.files.overwriting import Outputs, has_mark
    from yoda_cli.models.checkpoint import has_header
    from yoda_cli.training.data import list_pictures

    outputs = Outputs("own", [*list_pictures(data), *files_named(init)])
    for folder in folders:
        if real(folder) == real(data):
            raise OutputError(f"{shown(folder)} holds the photographs; choose another --out")
        if not is_folder(folder):
            continue
        kinds = {"best.safetensors": has_header, "last.safetensors": has_header,
                 "log.jsonl": has_mark(b'{"step": '), "state.pt": has_mark(b"PK", 2)}  # fmt: skip
        for name, is_ours in kinds.items():
            try:
                outputs.claim(folder / name, name, is_ours)
            except OutputError as error:
                text = f"{shown(folder)} is no run's folder: {error}; choose another --out"
                raise OutputError(text) from error


def describe(status: Status) -> str:
    """Where a run stands, in one line."""
    text = (
        f"step {status.step} · {status.progress:.1%} · loss {sum(status.terms.values()):.4f} · "
        f"{status.samples_per_second:.1f} samples/s · {status.elapsed_seconds / 60:.1f} min"
    )
    if status.score is not None:
        score = status.score
        text += (
            f" · validation: bicubic {score.bicubic_psnr:.2f}, base {score.base_psnr:.2f}, "
            f"sample {score.sample_psnr:.2f} dB, texture {score.texture:.3f}"
        )
        if score.base_psnr < score.bicubic_psnr:
            text += " (not better than bicubic yet)"
    return text
