"""Training: one plain loop over masked states, an EMA, and states from which a killed run goes on.

Prints nothing: progress goes to a callback. A run folder holds ``state.pt`` (everything to go on,
replaced atomically), ``best.safetensors`` (the EMA with the best validation score so far),
``last.safetensors``, ``log.jsonl`` and ``validation/*.png``.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yoda_cli.attention import SOURCES
from yoda_cli.config import Recipe, TrainOptions
from yoda_cli.devices.device import pick_precision
from yoda_cli.errors import UsageError
from yoda_cli.files import make_folder
from yoda_cli.files.paths import is_there
from yoda_cli.models import BACKBONES
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.checkpoint import load_checkpoint, save_checkpoint
from yoda_cli.models.srdiff import SRDiff
from yoda_cli.training.data import PairStore, list_pictures, load_held_out, split_validation
from yoda_cli.training.objective import losses
from yoda_cli.training.optimizers import make_optimizers
from yoda_cli.training.recipes import check_recipe
from yoda_cli.training.state import Run
from yoda_cli.training.validation import Score, validate
from yoda_cli.weights.entries import PACKAGE

log = logging.getLogger(__name__)

SHOWN_SECONDS = 5  # between two words on how far training is; chosen: a log of hours stays short


@dataclass(frozen=True)
class Status:
    """Where a run stands, for a progress line."""

    step: int
    progress: float
    terms: Mapping[str, float]
    samples_per_second: float
    elapsed_seconds: float
    score: Score | None


def rate_at(progress: float, step: int, options: TrainOptions) -> float:
    """The share of the full rate: a cosine from 1 to ``final_rate`` after a linear warm-up."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))
    decayed = options.final_rate + (1 - options.final_rate) * cosine
    return decayed * min(1.0, (step + 1) / max(options.warmup, 1))


def make_run(recipe: Recipe, device: torch.device, init: Path | None) -> Run:
    """Networks and optimiser of a fresh run, or of one that goes on from a checkpoint."""
    torch.manual_seed(recipe.train.seed)  # the one place: layers draw their start from it
    build = BACKBONES[recipe.backbone]
    try:
        net, ema = build(recipe.net), build(recipe.net)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise UsageError(f"recipe {recipe.name}: no network can be made of it: {error}") from error
    parts = dict(net.named_modules())
    for name in (*recipe.train.frozen, *recipe.train.muon):
        if name not in parts:
            raise UsageError(f"recipe {recipe.name}: its network has no part {name!r}")
    use_packaged_restorer(net)
    if init is not None:
        start_from(net, init)
    ema.load_state_dict(net.state_dict())
    for module in (net, ema):
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema.requires_grad_(False).eval()
    for name in recipe.train.frozen:
        parts[name].requires_grad_(False).eval()  # what it measures of its inputs stays too
    optimizers = make_optimizers(net, recipe.train)
    return Run(net, ema, optimizers, torch.Generator().manual_seed(recipe.train.seed))


def use_packaged_restorer(net: Backbone) -> None:
    """Give ``net`` the packaged restorer, if it has one: no recipe trains that.

    `scripts/restorer.py` does, from another network's pictures.
    """
    if not (isinstance(net, SRDiff) and net.restorer is not None):
        return
    packaged, _ = load_checkpoint(PACKAGE / "checkpoints" / "general.safetensors")
    assert isinstance(packaged, SRDiff)
    assert packaged.restorer is not None
    try:
        net.restorer.load_state_dict(packaged.restorer.state_dict())
    except RuntimeError as error:
        raise UsageError(
            "net.restorer_blocks: the packaged restorer has "
            f"{packaged.config.restorer_blocks}, and no recipe trains another"
        ) from error
    net.restorer.requires_grad_(False).eval()


def start_from(net: nn.Module, path: Path) -> None:
    """Fill ``net`` from a checkpoint: wholly, or where they differ with the tensors that fit.

    So a network for faces can start from the encoder of one for photographs.
    """
    loaded, _ = load_checkpoint(path)
    own, theirs = net.state_dict(), loaded.state_dict()
    fitting = {k: v for k, v in theirs.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise UsageError(f"{path} has no tensor that fits this recipe's network")
    if len(fitting) < len(own):
        log.warning("%d of %d tensors start from %s", len(fitting), len(own), path.name)
    net.load_state_dict(fitting, strict=False)


def train_step(
    run: Run, store: PairStore, options: TrainOptions, progress: float,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, float]:  # fmt: skip
    """One optimiser step; returns the loss terms."""
    net = run.net
    batch = store.batch(
        options.batch, options.patch // store.scale, run.generator, options.degrade,
        options.candidates,
    )  # fmt: skip
    terms = losses(net, batch, options, run.generator, autocast)
    loss = torch.stack(list(terms.values())).sum()
    run.net.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.net.parameters(), options.clip)
    run.optimizers.step(rate_at(progress, run.step, options))
    run.update_ema(options.ema)
    run.step += 1
    run.samples += options.batch
    return {name: float(value.detach()) for name, value in terms.items()}


@dataclass(frozen=True)
class Session:
    """What one call of ``train`` works with and never changes."""

    recipe: Recipe
    folder: Path
    device: torch.device
    card: Mapping[str, Any]
    held_out: Sequence[Tensor]

    def autocast(self) -> AbstractContextManager[Any]:
        precision = pick_precision("auto", self.device)
        enabled = precision is not torch.float32
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def publish(self, run: Run, name: str, score: Score) -> Path:
        """Write the EMA with everything needed to run it."""
        facts = {
            "recipe": self.recipe.name,
            "options": asdict(self.recipe.train),
            "device": str(self.device),
            "steps": run.step,
            "samples": run.samples,
            "minutes": round(run.elapsed / 60, 1),
            "validation": asdict(score),
        }
        path = self.folder / f"{name}.safetensors"
        save_checkpoint(
            path,
            backbone=self.recipe.backbone,
            net=self.recipe.net,
            state=run.ema.state_dict(),
            card={**self.card, "defaults": asdict(self.recipe.sample), "training": facts},
        )
        return path

    def judge(self, run: Run) -> Score:
        """Validate the EMA; keep it as ``last``, and as ``best`` if none was better."""
        options = self.recipe.train
        score = validate(
            run.ema,
            self.held_out,
            options.validation_steps,
            self.device,
            self.autocast,
            self.folder / "validation" / f"{run.step:07d}.png",
        )
        self.publish(run, "last", score)
        value = score.base_psnr if options.states == "none" else score.value
        if value > run.best or not is_there(self.folder / "best.safetensors"):
            run.best = value
            self.publish(run, "best", score)
        return score


def train(
    recipe: Recipe,
    data: Path,
    folder: Path,
    *,
    device: torch.device,
    card: Mapping[str, Any],
    init: Path | None = None,
    on_status: Callable[[Status], None] = lambda status: None,
) -> Path:
    """Train (or go on, where ``folder`` holds a state), and return the best checkpoint.

    ``card`` is what the checkpoint says of itself (licence, data); training facts are added.
    """
    options = recipe.train
    check_recipe(recipe)
    make_folder(folder)
    training, paths = split_validation(list_pictures(data))
    stride = max(1, len(paths) // options.validation_pictures)
    held_out = load_held_out(paths[::stride], options.reduce[0])
    session = Session(recipe, folder, device, card, held_out)
    run = make_run(recipe, device, init)
    if is_there(folder / "state.pt"):  # before the pictures: they take minutes
        run.restore(folder / "state.pt", device, recipe)
    sources = [name for name in options.attention if name in SOURCES and name != "uniform"]
    scale = int(recipe.net.get("scale", 4))
    maps = folder / "maps"  # never among the photographs
    store = PairStore.load(
        training,
        scale,
        sources,
        maps,
        device,
        options.patch // scale,
        options.reduce,
        options.drawings,
    )
    run_to_the_end(run, store, session, on_status)
    return folder / "best.safetensors"


def run_to_the_end(
    run: Run, store: PairStore, session: Session, on_status: Callable[[Status], None]
) -> None:
    """Step until the recipe's bound, saving, judging and reporting on the way."""
    options = session.recipe.train
    began, before, first = time.monotonic(), run.elapsed, run.samples
    saved = judged = shown = began
    score: Score | None = None
    while (progress := progress_of(run, options)) < 1:
        terms = train_step(run, store, options, progress, session.autocast)
        now = time.monotonic()
        run.elapsed = before + now - began
        reached = progress_of(run, options)
        done = reached >= 1
        if now - judged > options.validate_minutes * 60 or done:
            score = session.judge(run)
            judged = time.monotonic()
        if now - saved > options.save_minutes * 60 or done:
            run.save(session.folder / "state.pt", session.recipe)
            saved = time.monotonic()
        if now - shown > SHOWN_SECONDS or done:
            rate = (run.samples - first) / max(now - began, 1e-9)
            status = Status(run.step, min(reached, 1.0), terms, rate, run.elapsed, score)
            on_status(status)
            with (session.folder / "log.jsonl").open("a", encoding="utf-8") as journal:
                journal.write(json.dumps(asdict(status)) + "\n")
            shown = now


def progress_of(run: Run, options: TrainOptions) -> float:
    """The share of the run that is done, by steps or by time, whichever is further."""
    by_steps = run.step / options.steps if options.steps > 0 else 0.0
    by_time = run.elapsed / (60 * options.minutes) if options.minutes > 0 else 0.0
    return max(by_steps, by_time)
