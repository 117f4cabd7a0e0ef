"""What a file says of how it was made."""

from __future__ import annotations

import json

import torch

from yoda_cli.upscaling.settings import Settings
from yoda_cli.version import __version__

SAID_ELSEWHERE = ("model", "seed", "device")


def provenance(name: str, settings: Settings) -> dict[str, str]:
    """Software, model ``name``, seed, and every setting that decides the pixels as JSON."""
    rows = {key: value for key, value in settings.rows() if key not in SAID_ELSEWHERE}
    rows |= {"scale": settings.scale, "torch": torch.__version__}
    rows |= {switch.replace("-", "_"): True for switch in settings.switches()}
    return {
        "software": f"yoda {__version__}",
        "model": name,
        "seed": str(settings.sampling.seed),
        "settings": json.dumps(rows, sort_keys=True, default=str),
    }
