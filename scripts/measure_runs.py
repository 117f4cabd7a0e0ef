"""Constants that say how a whole run goes, tried by ``measure_constants.py``: what is computed
together, read ahead, run twice and held. Rows are for half, own and twice the value."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.evaluation.datasets import SAMPLE
from yoda_cli.evaluation.metrics import psnr, texture_distance
from yoda_cli.images import encode_picture, read_picture
from yoda_cli.images.picture import Picture
from yoda_cli.images.resize import imresize
from yoda_cli.models import calibration, timing
from yoda_cli.models.latent.autoencoder import Autoencoder
from yoda_cli.models.loading import find_model
from yoda_cli.models.model import Model
from yoda_cli.models.nets import ldm
from yoda_cli.upscaling import forecast, memory_limits, pipeline, together
from yoda_cli.upscaling.batch import local, plan
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer

Row = dict[str, float]
VAE = ldm.VAEConfig((128, 256, 512, 512), 2, 4)  # of Stable Diffusion; the weights do not matter


def seconds_of(run: Callable[[], object]) -> float:
    """Processor seconds of one run."""
    began = time.process_time()
    run()
    return time.process_time() - began


def pictures(side: int) -> Iterator[Tensor]:
    """The packaged originals (1, 3, side, side) in [0, 1], again and again."""
    for path in cycle(sorted(SAMPLE.glob("*.png"))):
        yield imresize(read_picture(path).rgb, (side, side)).clamp(0, 1)


def own_model() -> Model:
    return find_model(UpscaleOptions(precision="fp32", device="cpu"))


def small_together(factor: float, small: bool) -> Row:
    """Seconds of a small picture made with others over those of one made alone."""
    model, side = own_model(), 48 if small else 128
    settings = resolve(UpscaleOptions(denoise=0.0), model)
    count = int(together.TOGETHER_PIXELS * factor) // (side * model.scale) ** 2
    count = max(2, min(together.MOST, count))
    lrs = list(islice(pictures(side), count))

    def run(some: Sequence[Tensor]) -> float:
        many = [settings] * len(some), [Observer()] * len(some)
        return seconds_of(lambda: together.upscale_together(some, model, *many)) / len(some)

    run(lrs[:1])
    alone = statistics.median(run(lrs[:1]) for _ in range(3))
    return {"pictures": count, f"seconds of one of {side} over alone": run(lrs) / alone}


def read_ahead(factor: float, small: bool) -> Row:
    """What reading and writing take of a run, and what a result that waits for it holds."""
    pixels = local.AHEAD_PIXELS * factor
    side = 64 if small else 256
    model, lr = own_model(), next(pictures(side))
    settings = resolve(UpscaleOptions(denoise=0.0), model)
    made: list[Tensor] = []
    computing = seconds_of(lambda: made.append(upscale_tensor(lr, model, settings).image))
    data = encode_picture(Picture(lr), kind="PNG")
    files = seconds_of(lambda: read_picture(data))
    files += seconds_of(lambda: encode_picture(Picture(made[0]), kind="PNG"))
    return {"share that reading and writing take": files / (files + computing),
            "MB of a picture and its result": 12 * (1 + model.scale**2) * pixels / 1e6}  # fmt: skip


def second_pass(factor: float, small: bool) -> Row:
    """What a second pass gains over bicubic for the rest, beyond the native factor.

    Half and twice as far from 1, on a logarithmic scale."""
    rest = pipeline.RESIZE_ONLY ** math.log2(2 * factor) if factor >= 1 else 1.225
    model, side = own_model(), 16 if small else 40
    rows = []
    for hr in islice(pictures(round(side * model.scale * rest)), 1 if small else 3):
        lr = imresize(hr, (side, side)).clamp(0, 1)
        settings = resolve(UpscaleOptions(scale=hr.shape[-1] / side, denoise=0.0), model)
        ends, taken = [], []
        for once in (True, False):
            pipeline_only = pipeline.RESIZE_ONLY
            pipeline.RESIZE_ONLY = 99.0 if once else 1.0
            began = time.process_time()
            ends.append(upscale_tensor(lr, model, settings).image)
            taken.append(time.process_time() - began)
            pipeline.RESIZE_ONLY = pipeline_only
        one, two = ends
        rows.append((psnr(two, hr) - psnr(one, hr),
                     texture_distance(one, hr) - texture_distance(two, hr),
                     taken[1] / taken[0]))  # fmt: skip
    decibels, texture, times = map(statistics.mean, zip(*rows, strict=True))
    return {"rest": rest, "dB gained by a pass more": decibels,
            "texture distance gained": texture, "times the seconds": times}  # fmt: skip


def decoding(factor: float, small: bool) -> Row:
    """Seconds of decoding over those of coding, of an autoencoder with random weights."""
    return {"measured over it": coding(64 if small else 256) / (2.7 * factor)}


@cache
def coding(side: int) -> float:
    torch.manual_seed(0)
    vae = Autoencoder(ldm.make_vae(VAE).eval(), torch.device("cpu"))
    image = next(pictures(side)) * 2 - 1
    latent = vae.encode(image)
    encode = min(seconds_of(lambda: vae.encode(image)) for _ in range(2))
    return min(seconds_of(lambda: vae.decode(latent)) for _ in range(2)) / encode


def telling(factor: float, small: bool) -> Row:
    """How far runs of so many seconds scatter: the highest of nine over the lowest, by the clock
    on the wall, as runs are judged."""
    model, seconds = own_model(), calibration.TELLING_SECONDS * factor
    canvas = timing.Canvas.of(model, 32 if small else 64, model.backbone.encode)
    side = canvas.z_t.shape[-1] // 2 // 8 * 8
    calls = max(1, round(seconds / min(wall(canvas, side, 3) / 3 for _ in range(3))))
    readings = [wall(canvas, side, calls) for _ in range(3 if small else 9)]
    return {"highest over lowest": max(readings) / min(readings),
            "calls": calls}  # fmt: skip


@torch.inference_mode()
def wall(canvas: timing.Canvas, side: int, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        canvas.call(side)
    return time.perf_counter() - began


def of_process(code: str, *words: object) -> str:
    """What a process of Python prints last."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[
        -1
    ]


RUN = """
import sys, time
from yoda_cli.cli import run
path, which = sys.argv[1:3]
options = ["--runtime", which, "--precision", "fp32", "--device", "cpu", "--overwrite", "-q"]
code = run(["upscale", path, "-o", path + ".out.png", *options, *sys.argv[3:]])
from yoda_cli.devices.memory import peak_bytes
print(time.process_time(), peak_bytes() if code == 0 else -1)
"""
READ = """
import sys
from pathlib import Path
from yoda_cli.images import read_picture, encode_picture
from yoda_cli.devices.memory import peak_bytes
import numpy, torch, cv2
before = peak_bytes()
picture = read_picture(Path(sys.argv[1]), as_bytes=sys.argv[2] == "bytes")
after = peak_bytes()
if sys.argv[2] == "write":
    data = encode_picture(picture, kind="PNG")
    after = peak_bytes()
print(after - before)
"""
#: Constant: (module, name, format of the file, what is done with it, bits).
HELD = {
    "DECODED_BYTES": ("JPEG", "floats"), "REDUCED_BYTES": ("PNG", "bytes"),
    "WEBP_BYTES": ("WEBP", "bytes"), "DEEP_BYTES": ("deep", "bytes"),
    "RESULT_BYTES": ("PNG", "write"),
}  # fmt: skip


def held(factor: float, small: bool) -> Row:
    """Bytes a pixel that reading, or reading and writing, holds, over what is forecast for it."""
    sides = (200, 500) if small else (1000, 2500)
    return {name: held_by(*how, *sides) / (getattr(forecast, name) * factor)
            for name, how in HELD.items()}  # fmt: skip


@cache
def held_by(kind: str, what: str, few: int, many: int) -> float:
    """Of the pixels that a larger picture has more: what is loaded once counts for none."""
    return (held_of(kind, what, many) - held_of(kind, what, few)) / (many**2 - few**2)


def held_of(kind: str, what: str, side: int) -> float:
    from PIL import Image

    noise = (next(pictures(side))[0].permute(1, 2, 0) * 255).byte().numpy()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a"
        if kind == "deep":
            import tifffile

            tifffile.imwrite(path, noise.astype("uint16") * 257)
        else:
            Image.fromarray(noise).save(path, kind, lossless=True)
        return float(of_process(READ, path, what))


def canvas_bytes(factor: float, small: bool) -> Row:
    """Bytes that a pixel more of an uncut canvas holds, over CANVAS_BYTES."""
    few, many = (16, 24) if small else (96, 256)
    return {"measured over it": canvas_held(few, many) / (memory_limits.CANVAS_BYTES * factor)}


@cache
def canvas_held(few: int, many: int) -> float:
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for side in (few, many):
            path = Path(name) / f"{side}.png"
            path.write_bytes(encode_picture(Picture(next(pictures(side))), kind="PNG"))
            done = of_process(RUN, path, "torch", "--block", 0, "--tile", 64)
            peaks.append(int(done.split()[1]))
    return (peaks[1] - peaks[0]) / (16 * (many**2 - few**2))


def png_bytes(factor: float, small: bool) -> Row:
    """Bytes of a pixel in a PNG of an enlarged photograph, over BYTES_PER_PIXEL."""
    return {"measured over it": packed(16 if small else 64) / (plan.BYTES_PER_PIXEL * factor)}


@cache
def packed(side: int) -> float:
    model, sizes = own_model(), []
    for path in sorted(SAMPLE.parent.glob("*.png")):
        lr = read_picture(path).rgb[..., :side, :side]
        made = upscale_tensor(lr, model, resolve(UpscaleOptions(denoise=0.0), model)).image
        sizes.append(len(encode_picture(Picture(made), kind="PNG")) / made[0, 0].numel())
    return statistics.mean(sizes)


RUNS: dict[str, Callable[[float, bool], Row]] = {
    "TOGETHER_PIXELS": small_together,
    "AHEAD_PIXELS": read_ahead,
    "RESIZE_ONLY": second_pass,
    "DECODE": decoding,
    "TELLING_SECONDS": telling,
    "DECODED_BYTES": held,
    "CANVAS_BYTES": canvas_bytes,
    "BYTES_PER_PIXEL": png_bytes,
}
