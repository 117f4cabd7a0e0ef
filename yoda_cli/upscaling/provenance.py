"""What a file says of how it was made."""

from __future__ import annotations

import json

from yoda_cli.models.model import Model
from yoda_cli.upscaling.settings import Settings
from yoda_cli.version import __version__

SAID_ELSEWHERE = ("model", "seed", "device")


def provenance(model: Model, settings: Settings) -> dict[str, str]:
    """Software, the model's name, seed, and every setting that decides the pixels as JSON."""
    rows = {key: value for key, value in settings.rows() if key not in SAID_ELSEWHERE}
    software, version = model.software
    rows |= {"scale": settings.scale, software: version}
    rows |= {switch.replace("-", "_"): True for switch in settings.switches()}
    return {
        "software": f"yoda {__version__}",
        "model": model.name,
        "seed": str(settings.sampling.seed),
        "settings": json.dumps(rows, sort_keys=True, default=str),
    }
