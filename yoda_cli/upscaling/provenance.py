"""What a result was made with, in full: the settings as rows, and the command that repeats it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import torch

from yoda_cli.config import UpscaleOptions
from yoda_cli.models.model import Model
from yoda_cli.upscaling.settings import settings_of
from yoda_cli.version import __version__


def command(source: Path, target: Path, model: Model, options: UpscaleOptions) -> str:
    """A line for the shell that makes the same picture again."""
    words = ["yoda", "upscale", str(source), "-o", str(target)]
    for name, value in settings_of(model, options):
        words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--faithful"] if options.faithful else []
    words += [] if options.skip else ["--no-skip"]
    return shlex.join(words)


def provenance(model: Model, options: UpscaleOptions, scale: float) -> dict[str, str]:
    """What the file says of how it was made."""
    left_out = ("model", "seed", "device", "tile")  # said elsewhere, or of no effect
    settings = {k: v for k, v in settings_of(model, options) if k not in left_out}
    settings |= {"scale": scale, "faithful": options.faithful, "torch": torch.__version__}
    return {
        "software": f"yoda {__version__}",
        "model": model.name,
        "seed": str(options.seed),
        "settings": json.dumps(settings, sort_keys=True),
    }
