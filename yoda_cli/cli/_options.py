"""Options that several commands share; those about weights become environment variables.

They hold for the one run: ``yoda_cli.cli.run`` puts the environment back.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from yoda_cli.errors import UsageError


def _offline(asked: bool) -> None:
    if asked:
        os.environ["YODA_OFFLINE"] = "1"


def _cache_dir(folder: Path | None) -> None:
    if folder is not None:
        os.environ["YODA_CACHE_DIR"] = str(folder)


def _registry(path: Path | None) -> None:
    if path is not None:
        others = os.environ.get("YODA_REGISTRY", "")
        os.environ["YODA_REGISTRY"] = os.pathsep.join(filter(None, [others, str(path)]))


Offline = Annotated[
    bool, typer.Option("--offline", callback=_offline, help="Never use the network.")
]

CacheDir = Annotated[
    Path | None,
    typer.Option("--cache-dir", callback=_cache_dir, help="Folder of downloaded weights."),
]

RegistryFile = Annotated[
    Path | None,
    typer.Option("--registry", callback=_registry, help="A weights.toml of your own, added."),
]

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

Inputs = Annotated[list[Path], typer.Argument(help="Pictures.", show_default=False)]

Source = Annotated[
    str | None,
    typer.Option(
        "--attention",
        "--source",
        help="learned, uniform, edge, sift, gaussian, dino-vits8, dino-vits16, dino-resnet50, "
        "dino-resnet50-cam, or a grey picture (default: the model's own).",
    ),
]

Heads = Annotated[
    str | None, typer.Option(help="Of a DINO source: 0 … 5, avg or max (default: max).")
]

ModelName = Annotated[str, typer.Option("-m", "--model", help="Model name or checkpoint file.")]

LowerBound = Annotated[
    float | None, typer.Option(help="l in (0, 1]: how much diffusion every area gets.")
]

Steps = Annotated[int | None, typer.Option(help="Diffusion steps.")]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that yoda did not make.")
]

JsonLines = Annotated[bool, typer.Option("--json", help="One JSON object per input on stdout.")]

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only errors on stderr.")]

MetricNames = Annotated[
    list[str] | None, typer.Option("--metric", help="Repeatable; also lpips-alex, dists, …")
]

Channel = Annotated[str, typer.Option(help="PSNR and SSIM on y or rgb.")]


def parse_denoise(text: str) -> float | None:
    """``auto`` is None."""
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"denoise {text!r} is not allowed; give auto or 0 … 1") from None


PIXELS = re.compile(r"(\d+(?:\.\d+)?)([kMG]?)", re.ASCII)


def parse_pixels(text: str) -> int:
    """A number of pixels; k, M and G stand for thousands, millions and billions."""
    found = PIXELS.fullmatch(text)
    count = int(float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]]) if found else 0
    if count < 1:
        raise UsageError(f"max pixels {text!r} is not allowed; give a number such as 800M or 2G")
    return count


def parse_size(name: str, text: str) -> int | None:
    """``auto`` is None; otherwise output pixels."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdecimal():
        raise UsageError(f"{name} {text!r} is not allowed; give auto, 0 or a number of pixels")
    return int(text)
