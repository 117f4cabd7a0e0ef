#!/usr/bin/env python3
"""Trains what restores damaged pictures: `scripts/restorer.py X4PLUS.pth PHOTOS CHECKPOINT OUT`.

X4PLUS.pth holds the weights of Real-ESRGAN's x4plus (Xintao Wang, BSD-3-Clause) by their published
names. The restorer begins as some of its 23 blocks, with another, lighter way from features to
picture, and learns what the whole network makes of damaged crops of PHOTOS (every 20th picture in
name order is held out) and of drawn pictures. OUT is CHECKPOINT with the restorer in it.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.devices.device import pick_device, pick_precision
from yoda_cli.evaluation.metrics.basic import crop_border, structural_similarity
from yoda_cli.images.color import luma
from yoda_cli.models.checkpoint import read_header, save_checkpoint
from yoda_cli.models.nets.restorer import CHANNELS, GROWTH, Restorer
from yoda_cli.models.nets.rrdb import RRDB, SLOPE
from yoda_cli.training.data import PairStore, list_pictures, split_validation
from yoda_cli.training.texture_loss import texture_loss
from yoda_cli.weights.tensors import read_tensors

SCALE, TEACHER_BLOCKS = 4, 23
#: Of the teacher's blocks, left out one by one: each time the one without which the features that
#: are enlarged change least, up to a factor (24 crops of 32 pixels). Three fifths of their variance
#: is left without training.
KEPT = (0, 1, 2, 4, 6, 12, 15, 16, 17, 19, 21, 22)
PART = "restorer."
DRAWINGS = 90
SIDE, TAIL_SIDE = 64, 32  # LR pixels: of a pair, and of the crops that the tail is taught first
BATCH, TAIL_BATCH, CANDIDATES, TOGETHER = 5, 8, 4, 4
RATE, TAIL_RATE, LAST_RATE, WARMUP = 2e-4, 3e-4, 0.03, 60
TAIL_STEPS, FIRST_RATE, TAIL_BORDER = 5000, 2e-3, 4  # of the tail alone; LR pixels not judged
FEATURE_UNIT = 0.35  # what differences of features are divided by
TRUTH, FEATURES, STRUCTURE, TEXTURE = 0.15, 0.1, 0.1, 3.0  # weights of the terms
TEXTURE_FROM = 0.5  # of the run


class Teacher(nn.Module):
    """x4plus, by its published names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.body = nn.ModuleList(RRDB(CHANNELS, GROWTH) for _ in range(TEACHER_BLOCKS))
        for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
            self.add_module(name, nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1))
        self.conv_last = nn.Conv2d(CHANNELS, 3, 3, padding=1)

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """The picture of lr (B, 3, h, w) in [0, 1], and the features that it is made of."""
        parts = dict(self.named_children())
        first = x = self.conv_first(lr)
        for block in self.body:
            x = block(x)
        features = x = first + parts["conv_body"](x)
        for name in ("conv_up1", "conv_up2"):
            x = F.leaky_relu(parts[name](F.interpolate(x, scale_factor=2)), SLOPE)
        return self.conv_last(F.leaky_relu(parts["conv_hr"](x), SLOPE)), features


def load_teacher(path: Path) -> Teacher:
    """With the weights in ``path``; KeyError or RuntimeError where they are not those."""
    state = torch.load(path, weights_only=True)
    state = state.get("params_ema", state.get("params", state))
    teacher = Teacher()
    teacher.load_state_dict({key.replace(".rdb", ".RDB"): value for key, value in state.items()})
    return teacher.eval().requires_grad_(False)


def pruned(teacher: Teacher) -> Restorer:
    """The blocks of ``teacher`` that are kept; what makes the picture starts by chance."""
    net = Restorer(len(KEPT))
    net.conv_first.load_state_dict(teacher.conv_first.state_dict())
    net.conv_body.load_state_dict(teacher.get_submodule("conv_body").state_dict())
    for own, index in zip(net.body, KEPT, strict=True):
        own.load_state_dict(teacher.body[index].state_dict())
    return net


class Pairs(NamedTuple):
    """LR pictures, truth and the teacher's pictures as uint8, and its features in fp16."""

    lr: Tensor
    hr: Tensor
    picture: Tensor
    features: Tensor


def make_pairs(
    teacher: Teacher, training: Sequence[Path], count: int, device: torch.device,
    precision: torch.dtype,
) -> Pairs:  # fmt: skip
    """Damaged LR crops of ``SIDE`` pixels, the same ones each time."""
    generator = torch.Generator().manual_seed(1)
    with TemporaryDirectory() as maps:
        store = PairStore.load(
            training, SCALE, [], Path(maps), torch.device("cpu"), SIDE, (1, 1.4), DRAWINGS
        )
    rows: list[Pairs] = []
    teacher.to(device)
    while len(rows) * TOGETHER < count:
        batch = store.batch(TOGETHER, SIDE, generator, 1.0, CANDIDATES)
        half = torch.autocast(device.type, precision, enabled=precision != torch.float32)
        with torch.inference_mode(), half:
            picture, features = teacher(batch.lr.to(device))
        lr, hr, made = (_bytes(x.float().cpu()) for x in (batch.lr, batch.hr, picture))
        rows.append(Pairs(lr, hr, made, features.half().cpu()))
    return Pairs(*(torch.cat(column) for column in zip(*rows, strict=True)))


def _bytes(x: Tensor) -> Tensor:
    return (x.clamp(0, 1) * 255).round().byte()


def batches(pairs: Pairs, device: torch.device) -> Iterator[Pairs]:
    """``BATCH`` pairs as floats, without end."""
    while True:
        which = torch.randint(len(pairs.lr), (BATCH,))
        lr, hr, picture, features = (plane[which].to(device).float() for plane in pairs)
        yield Pairs(lr / 255, hr / 255, picture / 255, features)


def tail_crops(pairs: Pairs, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Crops of the teacher's features and of its picture there, without end."""
    while True:
        rows: list[tuple[Tensor, Tensor]] = []
        for which in torch.randint(len(pairs.lr), (TAIL_BATCH,)).tolist():
            top, left = torch.randint(SIDE - TAIL_SIDE + 1, (2,)).tolist()
            features, picture = (
                plane[which, :, factor * top :, factor * left :][
                    :, : factor * TAIL_SIDE, : factor * TAIL_SIDE
                ]
                for plane, factor in ((pairs.features, 1), (pairs.picture, SCALE))
            )
            rows.append((features, picture))
        features, picture = (torch.stack(c).to(device).float() for c in zip(*rows, strict=True))
        yield features, picture / 255


def teach_tail(net: Restorer, pairs: Pairs, precision: torch.dtype, steps: int) -> None:
    """The way from features to picture, on the teacher's own features."""
    device = next(net.parameters()).device
    optimizer = torch.optim.Adam(tail_of(net), FIRST_RATE)
    for step, (features, picture) in zip(range(steps), tail_crops(pairs, device), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = FIRST_RATE * (1 - step / steps) + FIRST_RATE / 200
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            made = net.enlarge(features)
        ours, theirs = (crop_border(x, TAIL_BORDER) for x in (made.float(), picture))
        loss = (ours - theirs).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def tail_of(net: Restorer) -> list[nn.Parameter]:
    """What makes the picture of features."""
    return [p for part in (net.conv_up, net.conv_hr, net.conv_last) for p in part.parameters()]


@dataclass(frozen=True)
class Terms:
    """What is minimised, and how far the run is (0 … 1)."""

    progress: float
    generator: torch.Generator

    def loss(self, picture: Tensor, features: Tensor, batch: Pairs) -> Tensor:
        """Of the restorer's picture and features."""
        ours, theirs, truth = picture, batch.picture, batch.hr
        error = (1 - TRUTH) * (ours - theirs).abs().mean() + TRUTH * (ours - truth).abs().mean()
        apart = (features - batch.features).abs().mean() / FEATURE_UNIT
        unlike = 1 - structural_similarity(luma(ours), luma(theirs))
        total = error + FEATURES * (1 - self.progress) * apart + STRUCTURE * unlike
        if self.progress > TEXTURE_FROM:
            total = total + TEXTURE * texture_loss(ours, theirs, SCALE, self.generator)
        return total


def train(
    net: Restorer, pairs: Pairs, minutes: float, precision: torch.dtype
) -> tuple[nn.Module, int]:
    """The average of the weights after so many minutes, and the steps that they took."""
    device = next(net.parameters()).device
    apart = {id(p) for p in tail_of(net)}
    optimizer = torch.optim.Adam(
        [
            {"params": [p for p in net.parameters() if id(p) in apart], "top": TAIL_RATE},
            {"params": [p for p in net.parameters() if id(p) not in apart], "top": RATE},
        ],
        RATE,
        betas=(0.9, 0.99),
    )
    average, source, generator = copy.deepcopy(net), batches(pairs, device), torch.Generator()
    began, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        for group in optimizer.param_groups:
            falling = LAST_RATE + (1 - LAST_RATE) * (1 - progress)
            group["lr"] = group["top"] * min(1, (step + 1) / WARMUP) * falling
        batch = next(source)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            features = net.features(batch.lr)
            picture = net.enlarge(features)
        loss = Terms(progress, generator).loss(picture.float(), features.float(), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            for kept, new in zip(average.parameters(), net.parameters(), strict=True):
                kept.lerp_(new, 1 - min(0.997, step / (step + 40)))
        progress = (time.monotonic() - began) / 60 / minutes
        if step % 50 == 0:
            sys.stdout.write(f"step {step}, {progress:.0%}: loss {float(loss):.4f}\n")
    return average, step


def write(restorer: nn.Module, checkpoint: Path, out: Path, facts: Mapping[str, object]) -> None:
    """``checkpoint`` with the restorer and what is said of it."""
    header, state = read_header(checkpoint), dict(read_tensors(checkpoint))
    kept = {key: value for key, value in state.items() if not key.startswith(PART)}
    added = {f"{PART}{key}": value for key, value in restorer.state_dict().items()}
    net = {**header.net, "restorer_blocks": len(KEPT)}
    card = {**header.card, "restorer": facts}
    save_checkpoint(out, backbone=header.backbone, net=net, state={**kept, **added}, card=card)


def facts_of(pairs: Pairs, steps: int, minutes: float) -> Mapping[str, object]:
    """What the card says of the restorer."""
    return {
        "made_by": "scripts/restorer.py",
        "distilled_from": "Real-ESRGAN x4plus, Copyright (c) 2021 Xintao Wang, BSD-3-Clause",
        "blocks_kept": list(KEPT),
        "pairs": len(pairs.lr),
        "steps": steps,
        "minutes": minutes,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("teacher", "photos", "checkpoint", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--faces", type=Path, help="a folder of which every eighth is used too")
    parser.add_argument("--pairs", type=int, default=3700)
    parser.add_argument("--minutes", type=float, default=58.0)
    parser.add_argument("--tail-steps", type=int, default=TAIL_STEPS)
    asked = parser.parse_args(arguments)
    torch.manual_seed(0)
    device = pick_device("auto")
    precision = pick_precision("auto", device)
    teacher = load_teacher(asked.teacher)
    training, _ = split_validation(list_pictures(asked.photos))
    if asked.faces is not None:
        training += split_validation(list_pictures(asked.faces))[0][::8]
    pairs = make_pairs(teacher, training, asked.pairs, device, precision)
    net = pruned(teacher).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    teach_tail(net, pairs, precision, asked.tail_steps)
    average, steps = train(net, pairs, asked.minutes, precision)
    write(average, asked.checkpoint, asked.out, facts_of(pairs, steps, asked.minutes))


if __name__ == "__main__":
    main()
