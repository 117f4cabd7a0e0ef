"""Times what the README promises, on this machine, and prints medians with their spread.

    python scripts/benchmark.py [--json]

Nothing here is asserted: a shared machine is noisy, so compare ratios within one run.
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
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from yoda_cli.config import UpscaleOptions
from yoda_cli.images import read_picture
from yoda_cli.models import find_model
from yoda_cli.pipeline import upscale_tensor

SAMPLE = Path(__file__).parent.parent / "yoda_cli" / "samples" / "dog.png"
REPEATS = 5


def timed(run: Callable[[], object]) -> dict[str, float]:
    run()  # warm-up
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def help_text() -> None:
    subprocess.run([sys.executable, "-m", "yoda_cli", "--help"], check=True, capture_output=True)


def gflop_per_call() -> float:
    model = find_model(UpscaleOptions(precision="fp32", device="cpu"))
    with torch.no_grad():
        condition = model.backbone.encode(read_picture(SAMPLE).rgb)
        mask = torch.ones_like(condition.z_lr[:, :1], dtype=torch.bool)
        with FlopCounterMode(display=False) as counter:
            model.backbone.predict(condition.z_lr, 500, condition, mask)
    return counter.get_total_flops() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    picture = read_picture(SAMPLE).rgb
    figures: dict[str, dict[str, float]] = {"yoda --help": timed(help_text)}
    for precision in ("auto", "fp32", "bf16"):
        options = UpscaleOptions(precision=precision, device="cpu")
        model = find_model(options)
        name = f"128×128 → 512×512, {precision}"
        figures[name] = timed(lambda m=model, o=options: upscale_tensor(picture, m, o))
    about = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "gflop_per_call": round(gflop_per_call(), 1),
    }
    if as_json:
        sys.stdout.write(json.dumps({"about": about, "seconds": figures}) + "\n")
        return
    sys.stdout.write(f"{about}\n")
    for name, figure in figures.items():
        spread = f"{figure['min']:.2f} … {figure['max']:.2f}"
        sys.stdout.write(f"{name:32s} {figure['median']:.2f} s ({spread})\n")


if __name__ == "__main__":
    main()
