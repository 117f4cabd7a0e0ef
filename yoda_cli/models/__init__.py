"""Networks, and how a name becomes one: ``loading.find_model``. Knows no mask and no tile plan.

The table below has every backbone of pixels, one line each: name → its module's ``from_config``, a
constructor from plain configuration. Families of latents have theirs in ``latent.catalog``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yoda_cli.models.backbone import Backbone


def _made(module: str, config: Mapping[str, Any]) -> Backbone:
    made: Backbone = import_module(f"yoda_cli.models.{module}").from_config(config)
    return made


#: Nothing of them is imported before one is made: a run may need no torch.
BACKBONES: dict[str, Callable[[Mapping[str, Any]], Backbone]] = {
    "sr3": partial(_made, "sr3"),
    "srdiff": partial(_made, "srdiff"),
}
