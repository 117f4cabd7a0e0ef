"""The table of backbones: name → constructor from plain configuration. One line each."""

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
