"""The recipe ``gain``: a small network that learns what each step of a frozen model gains.

Crops go through the adaptive sampler of the model, whose leaps are drawn at random here; each
estimate is measured against the truth. The network then learns to say the same without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.adaptive import Gains
from yoda_cli.errors import InputError, UsageError
from yoda_cli.evaluation.metrics.gain import Oracle, true_sums
from yoda_cli.images.resize import as_floats, imresize
from yoda_cli.models.gain import Judge, RegionView, Regressor, save_regressor
from yoda_cli.models.model import Model
from yoda_cli.models.nets.gain import PATCH as CELL
from yoda_cli.models.nets.gain import STRIDE, GainNet
from yoda_cli.models.regressors import shape_of
from yoda_cli.training.data import list_pictures, load_rgb, split_validation
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve

PATCH = 128  # HR pixels a side
CHAINS = (50, 25, 12)  # steps of the chains whose trajectories are sampled
COLLECTING = 0.7  # the share of the time that goes into trajectories
VALIDATED = 0.2  # the share of trajectories that are of held-out pictures
BATCH = 32  # steps of trajectories, in one step of the fit
RATE = 2e-3  # of AdamW, at first
FIT_STEPS = 800  # of the fit, where none are asked for
MINUTES = 15.0  # where nothing is said
LEAST_SPREAD = 1e-4  # of a gain: it is divided by it


@dataclass(frozen=True)
class Sample:
    """One step of one trajectory: the two estimates (1, C, H, W) in fp16 and their times over T,
    the unrefined picture, and what the step gained."""

    before: Tensor
    after: Tensor
    z_lr: Tensor
    times: tuple[float, float]
    gains: Gains


@dataclass(frozen=True)
class Ranked:
    """How well a regressor ranks held-out steps: Spearman's correlation of both gains."""

    fidelity: float
    realism: float


@dataclass
class Recorder:
    """A judge that measures, keeps, and answers at random, so that every leap is tried."""

    oracle: Oracle
    z_lr: Tensor
    total: int
    generator: np.random.Generator
    kept: list[Sample]
    before: Tensor | None = None
    sums: Gains = field(default_factory=lambda: Gains(0.0, 0.0))
    t: int = 0

    def __call__(self, z_0: Tensor, t: int) -> Gains | None:
        after, now = z_0.detach().cpu().half(), true_sums(*self.oracle.pictures(z_0))
        if self.before is not None:
            times = (self.t / self.total, t / self.total)
            gains = Gains.between(self.sums, now)
            self.kept.append(Sample(self.before, after, self.z_lr, times, gains))
        first, self.before, self.sums, self.t = self.before is None, after, now, t
        realism = float(self.generator.choice([0.0, 0.0, 1.0]))
        return None if first else Gains(0.0, realism)


def train_gain(
    model: Model, data: Path, target: Path, *, minutes: float = 0.0, steps: int = 0,
    seed: int = 0, on_status: Callable[[str], None] = lambda line: None,
) -> Ranked:  # fmt: skip
    """Train the regressor of ``model`` and write it to ``target``.

    It takes ``minutes`` in all, or ``steps`` of the optimiser on as many trajectories.
    """
    if not model.diffuses:
        raise UsageError(f"model {model.name} does not diffuse: there are no steps to judge")
    minutes = minutes or (0.0 if steps else MINUTES)
    training, held = split_validation(list_pictures(data))
    generator = np.random.default_rng(seed)
    kept = collect(model, training, held, minutes, steps, generator, on_status)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stride = STRIDE if model.family is None else CELL
        net = GainNet(model.backbone.geometry.z_channels, stride=stride)
    fit(net, kept[0], minutes * 60 * (1 - COLLECTING), steps, generator, on_status)
    ranked = rank(net, kept[1])
    card = {
        "steps_trained_on": len(kept[0]), "steps_held_out": len(kept[1]), "pictures": data.name,
        "rank_fidelity": round(ranked.fidelity, 3), "rank_realism": round(ranked.realism, 3),
        "measures": "PSNR and multi-scale SSIM; texture distance",
    }  # fmt: skip
    save_regressor(target, Regressor(net, shape_of(model), card))
    return ranked


def collect(
    model: Model, training: Sequence[Path], held: Sequence[Path], minutes: float, steps: int,
    generator: np.random.Generator, on_status: Callable[[str], None],
) -> tuple[list[Sample], list[Sample]]:  # fmt: skip
    """(training, held-out) steps of trajectories, until the time is over or there are ``steps`` of
    each."""
    ends = time.monotonic() + minutes * 60 * COLLECTING
    kept: tuple[list[Sample], list[Sample]] = ([], [])
    count = 0
    while not count or (time.monotonic() < ends if minutes else count < 2 * steps):
        turn = count % 2 if steps else int(generator.random() < VALIDATED)
        paths = (training, held)[1 if not kept[1] and count else turn]
        into = kept[1 if paths is held else 0]
        count += 1
        path = paths[int(generator.integers(len(paths)))]
        hr = crop_of(path, model.scale, generator)
        if hr is not None:
            sample_trajectory(model, hr, generator, into)
        on_status(f"{count} trajectories, {len(kept[0])} and {len(kept[1])} steps")
    if not kept[0] or not kept[1]:
        raise InputError("the pictures are too small, or the time was too short, to learn from")
    return kept


def crop_of(path: Path, scale: int, generator: np.random.Generator) -> Tensor | None:
    """A random crop (1, 3, H, W) in [0, 1]; None of a picture that is smaller."""
    picture, side = load_rgb(path), PATCH // scale * scale
    height, width = picture.shape[-2:]
    if min(height, width) < side:
        return None
    top = int(generator.integers(height - side + 1))
    left = int(generator.integers(width - side + 1))
    return as_floats(picture[..., top : top + side, left : left + side])


def sample_trajectory(
    model: Model, hr: Tensor, generator: np.random.Generator, into: list[Sample]
) -> None:
    """Run the model once over the LR picture of ``hr``, leaping at random."""
    lr = imresize(hr, scale=1 / model.scale).clamp(0, 1)
    total = model.backbone.schedule.num_steps

    def judge_of(view: RegionView) -> Judge:
        z_lr = view.z_lr.detach().cpu().half()
        return Recorder(Oracle(hr, view), z_lr, total, generator, into)

    asked = UpscaleOptions(
        model=model.name, adaptive=True, steps=int(generator.choice(CHAINS)), denoise=0.0,
        seed=int(generator.integers(1 << 31)),
    )  # fmt: skip
    judged = replace(model, judge_of=judge_of)
    upscale_tensor(lr, judged, resolve(asked, judged))


def batch_of(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(before, after, z_lr, times, gains), each with a batch; of samples of one shape."""
    return (
        torch.cat([sample.before for sample in samples]).float(),
        torch.cat([sample.after for sample in samples]).float(),
        torch.cat([sample.z_lr for sample in samples]).float(),
        torch.tensor([sample.times for sample in samples]),
        torch.tensor([(sample.gains.fidelity, sample.gains.realism) for sample in samples]),
    )


def fit(
    net: GainNet, samples: Sequence[Sample], seconds: float, steps: int,
    generator: np.random.Generator, on_status: Callable[[str], None],
) -> None:  # fmt: skip
    """L2 on gains in units of their spread."""
    spread = batch_gains(samples).std(0, correction=0).clamp(min=LEAST_SPREAD)
    net.scale.copy_(spread)
    wanted = steps or FIT_STEPS
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, wanted)
    ends = time.monotonic() + seconds
    net.train()
    for step in range(wanted):
        picked = generator.integers(len(samples), size=BATCH)
        *pictures, times, gains = batch_of([samples[int(i)] for i in picked])
        flips = [dim for dim in (-1, -2) if generator.random() < 0.5]
        before, after, z_lr = (picture.flip(flips) for picture in pictures)
        loss = ((net(before, after, z_lr, times) - gains) / spread).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        on_status(f"step {step + 1} of {wanted}, loss {loss.item():.3f}")
        if not steps and time.monotonic() > ends:
            break
    net.eval()


def batch_gains(samples: Sequence[Sample]) -> Tensor:
    """(N, 2): fidelity and realism."""
    return torch.tensor([(sample.gains.fidelity, sample.gains.realism) for sample in samples])


@torch.no_grad()
def rank(net: GainNet, samples: Sequence[Sample]) -> Ranked:
    """How well ``net`` orders steps that it never saw."""
    seen = [net(*batch_of([sample])[:4]) for sample in samples]
    predicted, true = torch.cat(seen), batch_gains(samples)
    return Ranked(*(rank_correlation(predicted[:, i], true[:, i]) for i in range(2)))


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's, of (N,); ties in order of place. 0 where there is nothing to rank."""
    if len(x) < 2:
        return 0.0
    ranks = torch.stack([v.argsort(stable=True).argsort(stable=True).double() for v in (x, y)])
    return float(torch.corrcoef(ranks)[0, 1])
