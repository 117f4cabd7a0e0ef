"""Times what the README promises, on this machine, as ratios within one run.

    python scripts/benchmark.py PHOTOS [--part masks]… [--repeats 3] [--json]

PHOTOS is a folder of photographs; the masks are timed on the eight named here where they are
there, else on its first eight. Methods take turns, so that a busy moment of a shared machine meets
all of them. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from benchmark_photo import photo, photo_windows, steps
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from yoda_cli.config import UpscaleOptions
from yoda_cli.images import read_picture
from yoda_cli.images.resize import imresize
from yoda_cli.models.loading import find_model
from yoda_cli.models.srdiff import SRDIFF_DF2K, SRDiff
from yoda_cli.training.data import list_pictures
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.result import Result

SAMPLE = Path(__file__).parent.parent / "yoda_cli" / "samples" / "dog.png"
# Chosen before anything was measured: every 1/8th of the photographs of at least 960 pixels.
PHOTOS = (
    "budgie_000_full.jpg",
    "budgie_040_full.jpg",
    "deepin_117_full.jpg",
    "elementary_174_full.jpg",
    "elementary_214_full.jpg",
    "elementary_259_full.jpg",
    "matheus_326_full.jpg",
    "popos_412_full.jpg",
)
FIXED = (256, 512, 0)
REPEATS = 3
Figures = dict[str, dict[str, float]]


def all_in_turn(methods: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every method, ``repeats`` times."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, run in methods.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def in_turn(methods: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of every method."""
    return medians(all_in_turn(methods, repeats))


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in seconds.items()}


def geometric(values: Iterable[float]) -> float:
    return statistics.geometric_mean(list(values))


def photos(folder: Path) -> list[Path]:
    named = [folder / name for name in PHOTOS]
    return named if all(path.exists() for path in named) else list_pictures(folder)[:8]


def reduced(path: Path, longest: int) -> Tensor:
    lr = read_picture(path).rgb
    factor = longest / max(lr.shape[-2:])
    size = [round(n * factor) for n in lr.shape[-2:]]
    return imresize(lr, (size[0], size[1])).clamp(0, 1) if factor < 1 else lr


def masks(folder: Path, repeats: int, longest: int = 500) -> Figures:
    """Skipping against the fastest dense partition, and the planner against the best fixed tile.

    One run of each finds the fastest partition and tile; then methods take turns. Figures are those
    of medians, and again of the least seconds, to which a busy machine adds less.
    """
    options = UpscaleOptions(denoise=0.0, lower_bound=0.1)
    model = find_model(options)
    found: Figures = {}
    for path in photos(folder):
        lr = reduced(path, longest)

        def method(lr: Tensor = lr, **changes: object) -> Callable[[], Result]:
            asked = replace(options, **changes)  # type: ignore[arg-type]
            return lambda: upscale_tensor(lr, model, asked)

        upscale_tensor(lr[..., :64, :64], model, options)
        dense = in_turn({str(t): method(attention="uniform", tile=t) for t in (None, 0, 512)}, 1)
        tile = {"None": None, "0": 0, "512": 512}[min(dense, key=dense.__getitem__)]
        grids = in_turn({str(t): method(tile=t) for t in FIXED}, 1)
        forecasts: list[float] = []  # of every run, over what that run took

        masked = method()

        def learned(run: Callable[[], Result] = masked, to: list[float] = forecasts) -> None:
            result = run()
            to.append(result.forecast_seconds / result.seconds)

        seconds = all_in_turn(
            {
                "dense": method(attention="uniform", tile=tile),
                "learned": learned,
                "edge": method(attention="edge"),
                "grid": method(tile=int(min(grids, key=grids.__getitem__))),
            },
            repeats,
        )
        least = {name: min(times) for name, times in seconds.items()}
        found[f"{path.name} {lr.shape[-1] * 4}×{lr.shape[-2] * 4}"] = {
            name + kind: figure
            for kind, times in (("", medians(seconds)), (", least", least))
            for name, figure in {
                "learned": times["dense"] / times["learned"],
                "edge": times["dense"] / times["edge"],
                "planner over best tile": times["grid"] / times["learned"],
                "dense seconds": times["dense"],
            }.items()
        } | {
            "forecast over measured": statistics.median(forecasts),
            "forecast over measured, lowest": min(forecasts),
            "forecast over measured, highest": max(forecasts),
        }  # fmt: skip
        sys.stderr.write(f"{path.name} {found[next(reversed(found))]}\n")
    names = next(iter(found.values()))
    found["geometric mean"] = {n: geometric(row[n] for row in found.values()) for n in names}
    return found


def precision(folder: Path, repeats: int) -> Figures:
    """bf16 against fp32, one thread against two; 128×128 → 512×512."""
    lr = read_picture(SAMPLE).rgb
    methods = {}
    for kind in ("fp32", "bf16"):
        options = UpscaleOptions(precision=kind, denoise=0.0)
        model = find_model(options)
        for threads in (1, 2):

            def run(m: object = model, o: UpscaleOptions = options, n: int = threads) -> object:
                torch.set_num_threads(n)
                return upscale_tensor(lr, m, o)  # type: ignore[arg-type]

            run()
            methods[f"{kind}, {threads} threads"] = run
    before = torch.get_num_threads()
    times = in_turn(methods, repeats)
    torch.set_num_threads(before)
    return {name: {"seconds": s, "of fp32, 1 thread": s / times["fp32, 1 threads"]}
            for name, s in times.items()}  # fmt: skip


def peers(folder: Path, repeats: int) -> Figures:
    """The default run against other architectures with random weights; 128×128 → 512×512."""
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.ESRGAN import ESRGAN

    lr = read_picture(SAMPLE).rgb
    options = UpscaleOptions(denoise=0.0)
    model = find_model(options)
    x4plus = ESRGAN(in_nc=3, out_nc=3, num_filters=64, num_blocks=23, scale=4).eval()
    x4v3 = Compact(num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=32, upscale=4).eval()
    srdiff = SRDiff(SRDIFF_DF2K).eval()
    with torch.inference_mode():
        condition = srdiff.encode(lr)
    mask = torch.ones(1, 1, 512, 512, dtype=torch.bool)

    def forward(net: torch.nn.Module) -> Callable[[], object]:
        net.to(memory_format=torch.channels_last)

        def run() -> object:
            with torch.inference_mode(), model.context():  # the same precision as ours
                return net(lr)

        return run

    def three_calls() -> object:
        with torch.inference_mode():
            for t in (100, 50, 1):
                srdiff.predict(torch.randn(1, 3, 512, 512), t, condition, mask)

    upscale_tensor(lr, model, options)
    times = in_turn(
        {
            "yoda": lambda: upscale_tensor(lr, model, options),
            "Real-ESRGAN x4plus": forward(x4plus),
            "Real-ESRGAN general-x4v3": forward(x4v3),
        },
        repeats,
    )
    times["SRDiff, T = 100"] = in_turn({"three": three_calls}, 1)["three"] * 100 / 3
    return {name: {"seconds": s, "yoda over it": times["yoda"] / s} for name, s in times.items()}


def sizes(folder: Path, repeats: int) -> Figures:
    """Seconds per output megapixel of the dense run against the size of the picture.

    Each method enlarges the same number of pixels in a turn: all are as long in the weather.
    """
    options = UpscaleOptions(denoise=0.0, attention="uniform")
    model = find_model(options)
    lr = read_picture(photos(folder)[0]).rgb
    methods = {}
    for megapixels in (0.25, 1, 4, 16):
        side = round((megapixels * 1e6 / 16) ** 0.5)
        square = imresize(lr, (side, side)).clamp(0, 1)
        count = round(16 / megapixels)

        def run(x: Tensor = square, n: int = count) -> None:
            for _ in range(n):
                upscale_tensor(x, model, options)

        methods[f"{megapixels} MP"] = run
    run()
    times = {name: s / 16 for name, s in in_turn(methods, repeats).items()}
    return {n: {"seconds per MP": s, "of 1 MP": s / times["1 MP"]} for n, s in times.items()}


def memory(folder: Path, repeats: int) -> Figures:
    """Peak resident memory of whole processes."""
    found = {}
    for width, height, how in (
        (512, 340, "--no-stream"),
        (2040, 1356, "--no-stream"),
        (2040, 1356, "--stream"),
    ):
        path = Path(os.environ.get("TMPDIR", "/tmp")) / f"yoda-benchmark-{width}.bmp"
        command = [
            sys.executable,
            "-c",
            MEMORY,
            str(photos(folder)[0]),
            str(path),
            str(width),
            str(height),
            how,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        size = int(done.stdout.split()[-1])
        pixels = width * height * 16
        found[f"{width}×{height} → {width * 4}×{height * 4}, {how}"] = {
            "GB": size / 1e9, "bytes per output pixel beyond 0.8 GB": (size - 0.8e9) / pixels,
        }  # fmt: skip
    return found


MEMORY = """
import sys
from pathlib import Path
from PIL import Image
from yoda_cli.cli import run
from yoda_cli.devices.memory import peak_bytes  # unlike getrusage's, of this process alone
source, path, width, height = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
Image.open(source).convert("RGB").resize((width, height)).save(path)
out = path.with_suffix(".png")
code = run(["upscale", str(path), "-o", str(out), sys.argv[5], "--overwrite", "-q"])
path.unlink(), out.unlink()
print(peak_bytes() if code == 0 else -1)
"""


def help_text(folder: Path, repeats: int) -> Figures:
    command = [sys.executable, "-m", "yoda_cli", "--help"]
    run = {"yoda --help": lambda: subprocess.run(command, check=True, capture_output=True)}
    return {name: {"seconds": s} for name, s in in_turn(run, repeats + 2).items()}


def gflop_per_call() -> float:
    model = find_model(UpscaleOptions(precision="fp32", device="cpu"))
    with torch.no_grad():
        condition = model.backbone.encode(read_picture(SAMPLE).rgb)
        mask = torch.ones_like(condition.z_lr[:, :1], dtype=torch.bool)
        with FlopCounterMode(display=False) as counter:
            model.backbone.predict(condition.z_lr, 500, condition, mask)
    return counter.get_total_flops() / 1e9


def masks_4k(folder: Path, repeats: int) -> Figures:
    return masks(folder, repeats, 1000)


PARTS: dict[str, Callable[[Path, int], Figures]] = {
    "help": help_text,
    "precision": precision,
    "peers": peers,
    "sizes": sizes,
    "memory": memory,
    "masks": masks,
    "masks-4k": masks_4k,
    "photo": lambda folder, repeats: photo(photos(folder), repeats),
    "steps": lambda folder, repeats: steps(),
    "windows": lambda folder, repeats: photo_windows(photos(folder)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    about = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "gflop_per_call": round(gflop_per_call(), 1),
    }
    found = {part: PARTS[part](asked.photos, asked.repeats) for part in asked.part or PARTS}
    if asked.json:
        sys.stdout.write(json.dumps({"about": about, **found}) + "\n")
        return
    sys.stdout.write(f"{about}\n")
    for part, figures in found.items():
        sys.stdout.write(f"\n{part}\n")
        for name, row in figures.items():
            sys.stdout.write(
                f"  {name:44s}" + ", ".join(f"{k} {v:.3f}" for k, v in row.items()) + "\n"
            )


if __name__ == "__main__":
    main()
