"""Options that several commands share; those about weights become environment variables.

They hold for the one run: ``yoda_cli.cli.run`` puts the environment back.
"""

from __future__ import annotations

import os
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


DENOISE_WORDS = {"none": 0.0, "light": 0.3, "strong": 0.7}


def parse_denoise(text: str) -> float | None:
    """``auto`` is None."""
    if text == "auto":
        return None
    if text in DENOISE_WORDS:
        return DENOISE_WORDS[text]
    try:
        return float(text)
    except ValueError:
        allowed = f"auto, {', '.join(DENOISE_WORDS)} or 0 … 1"
        raise UsageError(f"denoise {text!r} is not allowed; give {allowed}") from None


def parse_size(name: str, text: str) -> int | None:
    """``auto`` is None; otherwise output pixels."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdecimal():
        raise UsageError(f"{name} {text!r} is not allowed; give auto, 0 or a number of pixels")
    return int(text)
