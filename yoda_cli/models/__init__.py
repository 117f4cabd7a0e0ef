"""Networks, and how a name becomes one: ``loading.find_model``. Knows no mask and no tile plan.

The table below has every backbone of pixels: name → constructor from plain configuration, one
line each. Families of latents have theirs in ``latent.catalog``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from yoda_cli.models import sr3, srdiff
from yoda_cli.models.base import Backbone, Condition, build_config, crop_condition

__all__ = ["BACKBONES", "Backbone", "Condition", "build_config", "crop_condition"]

BACKBONES: dict[str, Callable[[Mapping[str, Any]], Backbone]] = {
    "sr3": sr3.from_config,
    "srdiff": srdiff.from_config,
}
