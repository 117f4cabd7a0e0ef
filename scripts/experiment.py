"""Short training runs side by side: does YODA help, and which recipe is best? Prints JSON lines.

    python scripts/experiment.py PHOTOS TEST OUT [--steps 800] [--seeds 3]

PHOTOS is a folder to train on, TEST one of pictures to measure on (bicubic LR, ×4), OUT keeps the
checkpoints, so that a run that was stopped goes on. Every method has the same small network, crops,
steps and seeds; a line holds PSNR, SSIM, texture distance, colour error, refined pixels and time
of one method, seed and sampling.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from yoda_cli.config import (
    Recipe,
    SampleDefaults,
    TrainOptions,
    UpscaleOptions,
)
from yoda_cli.evaluation.metrics import (
    colour_error,
    psnr,
    quantise,
    ssim,
    texture_distance,
)
from yoda_cli.images.resize import crop_to_multiple, imresize
from yoda_cli.models.loading import load_model
from yoda_cli.models.model import Model
from yoda_cli.training.data import list_pictures, load_rgb
from yoda_cli.training.loop import train
from yoda_cli.training.recipes import load_recipe
from yoda_cli.upscaling.picture_plan import survey
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.result import Observer

NET = {"dim": 32, "encoder_channels": 32, "encoder_blocks": 6}
TRAIN = TrainOptions(
    patch=96, batch=8, rate=8e-4, chains=(4, 8, 15, 25), lower_bound=(0.05, 0.3),
    validate_minutes=1e9, save_minutes=1e9, validation_pictures=1,
)  # fmt: skip
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # name: (training, network, map while sampling)
    "plain": ({"attention": {"uniform": 1.0}}, {}, "uniform"),
    "learned": ({"attention": {"learned": 1.0}}, {}, "learned"),
    "edge": ({"attention": {"edge": 1.0}}, {}, "edge"),
    "sift": ({"attention": {"sift": 1.0}}, {}, "sift"),
    "shuffled edge": ({"attention": {"edge": 1.0}, "masks": "shuffled"}, {}, "shuffled edge"),
    "t-weighted": ({"attention": {"edge": 1.0}, "masks": "weights"}, {}, "uniform"),
    "eps": ({"attention": {"uniform": 1.0}}, {"prediction": "eps"}, "uniform"),
    "v": ({"attention": {"uniform": 1.0}}, {"prediction": "v"}, "uniform"),
    "against bicubic": ({"attention": {"uniform": 1.0}}, {"anchor": "bicubic"}, "uniform"),
    "edge, by crop": ({"attention": {"edge": 1.0}, "divide_by": "crop"}, {}, "edge"),
}
OF_THE_QUESTION = 6  # methods that get all seeds
SAMPLINGS: list[tuple[str, dict[str, Any]]] = [
    (f"{sampler} {steps}, l {lower}", {"steps": steps, "sampler": sampler, "lower_bound": lower})
    for sampler, steps, lower in (
        ("ddim", 4, 0.1), ("ddim", 8, 0.1), ("ddim", 15, 0.1), ("ddim", 15, 0.3),
        ("ddim", 50, 0.1), ("ddpm", 15, 0.1),
    )
]  # fmt: skip


def checkpoint_of(method: str, seed: int, steps: int, photos: Path, out: Path) -> Path:
    """Train one method, unless that was done."""
    training, network, _ = ARMS[method]
    base = load_recipe("general")
    recipe = Recipe(
        method, base.backbone, {**base.net, **NET, **network},
        replace(TRAIN, **training, steps=steps, seed=seed), SampleDefaults(),
    )  # fmt: skip
    folder = out / f"{method.replace(' ', '-').replace(',', '')}-{seed}"
    if not (folder / "last.safetensors").exists():
        train(recipe, photos, folder, device=torch.device("cpu"), card={})
    return folder / "last.safetensors"


def map_of(lr: Tensor, model: Model, source: str) -> Tensor | None:
    """A map that no source gives: the true one rolled by half the picture."""
    if not source.startswith("shuffled "):
        return None
    options = UpscaleOptions(attention=source.removeprefix("shuffled "), denoise=0.0)
    attention = survey(lr, model, options).attention
    return attention.roll([n // 2 for n in lr.shape[-2:]], (-2, -1))


def measure(model: Model, source: str, pictures: list[Tensor], **sampling: Any) -> dict[str, float]:
    """Means over the pictures."""
    rows = []
    named = source if not source.startswith("shuffled ") else None
    options = UpscaleOptions(attention=named, tile=0, denoise=0.0, **sampling)
    for hr in pictures:
        lr, truth = imresize(hr, scale=1 / 4).float() / 255, hr.float() / 255
        shares: list[float] = []
        watch = Observer(on_step=lambda r, s=shares: s.append(float(r.mask.float().mean())),
                         whole=True)  # fmt: skip
        attention = map_of(lr, model, source)
        began = time.perf_counter()
        made = upscale_tensor(lr, model, options, watch, attention=attention)
        seconds = time.perf_counter() - began
        sr = quantise(made.image)
        rows.append(
            {
                "psnr": psnr(sr, truth, border=4),
                "ssim": ssim(sr, truth, border=4),
                "texture": texture_distance(sr, truth, border=4),
                "colour": colour_error(sr, truth),
                "refined": sum(shares),
                "calls": made.calls,
                "seconds": seconds,
            }
        )
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("photos", "test", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    pictures = [crop_to_multiple(load_rgb(path), 4) for path in list_pictures(asked.test)]
    for seed in range(asked.seeds):
        for index, method in enumerate(ARMS):
            if seed > 0 and index >= OF_THE_QUESTION:
                continue
            path = checkpoint_of(method, seed, asked.steps, asked.photos, asked.out)
            model = load_model(path, method, UpscaleOptions(device="cpu", precision="bf16"))
            for name, sampling in SAMPLINGS:
                row = measure(model, ARMS[method][2], pictures, **sampling)
                line = {"method": method, "seed": seed, "sampling": name}
                line |= {k: round(v, 4) for k, v in row.items()}
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
