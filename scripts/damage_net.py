#!/usr/bin/env python3
"""Trains the network that sees how damaged a picture is: `scripts/damage_net.py PHOTOS OUT`.

Crops of PHOTOS (every 20th picture in name order is held out) and drawn pictures are damaged as
`yoda train` does it, three in ten not at all; the network learns the drawn strength from the crops'
statistics. Prints how well held-out crops are ranked, and writes OUT, a `damage.safetensors`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from yoda_cli.images.degradation import CLEAN_BELOW
from yoda_cli.images.degradation_net import MOST, STATISTICS, WIDTHS, statistics
from yoda_cli.training.data import list_pictures, load_rgb, split_validation
from yoda_cli.training.degrade import Bytes, clean_lr, degrade
from yoda_cli.training.drawings import draw
from yoda_cli.training.gain import rank_correlation

SCALE = 4
SIDE = 64  # LR pixels of a crop
CLEAN = 0.3  # the share of crops that are not damaged
DRAWN = 0.2  # the share of drawn pictures
GREY = 0.25  # the share of crops without colour, as old photographs and scans are
SMALLER = 1.6  # copies of pictures are made up to so many times smaller: their detail is finer
BATCH, RATE, WEIGHT_DECAY = 128, 2e-3, 0.05
DROPPED = 0.2  # of what the first layer says, while it learns
BEND = 0.05  # errors below it count by their square
CLEAN_WEIGHT = 6.0  # of the error of a clean crop: to restore what is clean does more harm


class DamageNet(nn.Module):
    """Its tensors are what ``degradation_net.strengths`` reads."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, above in pairwise((STATISTICS, *WIDTHS)):
            layers += [nn.Linear(width, above), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])
        self.register_buffer("mean", torch.zeros(STATISTICS))
        self.register_buffer("deviation", torch.ones(STATISTICS))

    def forward(self, seen: Tensor) -> Tensor:
        """(B,) strengths of (B, ``STATISTICS``)."""
        z = ((seen - self.mean) / self.deviation).clamp(-MOST, MOST)
        first, then = self.layers[:2], self.layers[2:]
        seen_first = F.dropout(first(z), DROPPED, self.training)
        out: Tensor = F.softplus(then(seen_first))[:, 0]
        return out


def collect(paths: Sequence[Path], count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Statistics (count, S) of LR crops of ``SIDE`` pixels, and strengths (count,)."""
    side = SIDE * SCALE
    seen: list[Tensor] = []
    strengths: list[float] = []
    while len(seen) < count:
        hr = draw(side, [], rng) if rng.random() < DRAWN else crop_of(paths, side, rng)
        is_grey, is_clean = rng.random() < GREY, rng.random() < CLEAN
        hr = without_colour(hr) if is_grey else hr
        lr, strength = (clean_lr(hr, SCALE), 0.0) if is_clean else degrade(hr, SCALE, rng)
        lr = without_colour(lr) if is_grey else lr  # noise may have brought some
        window = lr.transpose(2, 0, 1)[None].astype(np.float32) / 255
        seen.append(torch.from_numpy(statistics(window)))
        strengths.append(strength)
    return torch.cat(seen), torch.tensor(strengths)


def without_colour(picture: Bytes) -> Bytes:
    """(H, W, 3), all channels alike."""
    return np.asarray(Image.fromarray(picture).convert("L").convert("RGB"))


def crop_of(paths: Sequence[Path], side: int, rng: np.random.Generator) -> Bytes:
    """(side, side, 3) of a photograph, which is made smaller in half of the cases."""
    while True:
        picture = load_rgb(paths[int(rng.integers(len(paths)))])
        if rng.random() < 0.5:
            picture = smaller(picture, rng.uniform(1, SMALLER))
        height, width = picture.shape[-2:]
        if min(height, width) >= side:
            break
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = picture[0, :, top : top + side, left : left + side]
    return crop.permute(1, 2, 0).numpy().copy()


def smaller(picture: Tensor, factor: float) -> Tensor:
    """(1, 3, H, W) uint8, each side by ``factor`` ≥ 1."""
    size = [max(1, round(n / factor)) for n in picture.shape[-2:]]
    reduced = F.interpolate(picture.float(), size, mode="bilinear", antialias=True)
    return reduced.round().clamp(0, 255).byte()


def fit(net: DamageNet, seen: Tensor, strengths: Tensor, epochs: int) -> None:
    """Smooth L1 on the strengths; the statistics' mean and deviation become part of ``net``."""
    net.mean.copy_(seen.mean(0))
    net.deviation.copy_(seen.std(0) + 1e-3)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    steps = max(1, epochs * len(seen) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        picked = torch.randint(len(seen), (BATCH,))
        told, drawn = net(seen[picked]), strengths[picked]
        weights = torch.where(drawn == 0, CLEAN_WEIGHT, 1.0)
        loss = (weights * F.smooth_l1_loss(told, drawn, beta=BEND, reduction="none")).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def describe(told: Tensor, strengths: Tensor) -> str:
    """How well the strengths are told."""
    damaged = strengths > 0
    wrong = (told[~damaged] >= CLEAN_BELOW).float().mean()
    return (
        f"rank correlation {rank_correlation(told, strengths):.3f}, of damaged crops alone "
        f"{rank_correlation(told[damaged], strengths[damaged]):.3f}; mean error "
        f"{(told - strengths)[damaged].abs().mean():.3f}; clean crops taken for damaged {wrong:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--crops", type=int, default=18_000)
    parser.add_argument("--held-out", type=int, default=1_500)
    parser.add_argument("--epochs", type=int, default=40)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    training, held = split_validation(list_pictures(asked.photos))
    net = DamageNet()
    fit(net, *collect(training, asked.crops, rng), asked.epochs)
    seen, strengths = collect(held, asked.held_out, rng)
    with torch.no_grad():
        told = net.eval()(seen)
    line = describe(told, strengths)
    sys.stdout.write(f"{line}\n")
    facts = {"made_by": "scripts/damage_net.py", "crops": str(asked.crops), "held_out": line}
    save_file(net.state_dict(), asked.out, facts)


if __name__ == "__main__":
    main()
