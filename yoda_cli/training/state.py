"""What changes while training, and the file from which a stopped run goes on."""

from __future__ import annotations

import json
import math
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from yoda_cli.config import Recipe
from yoda_cli.errors import UsageError
from yoda_cli.models.backbone import Backbone
from yoda_cli.training.optimizers import Optimizers

#: What reading half a file, or one of another kind, ends in.
BROKEN = (
    RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError,
    pickle.UnpicklingError,
)  # fmt: skip


@dataclass
class Run:
    """What changes while training: the owner of weights, optimiser and counters."""

    net: Backbone
    ema: Backbone
    optimizers: Optimizers
    generator: torch.Generator
    step: int = 0
    elapsed: float = 0.0
    samples: int = 0
    best: float = -math.inf

    def state(self, recipe: Recipe) -> dict[str, Any]:
        return {
            "recipe": identity(recipe),
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "generator": self.generator.get_state(),
            "counters": [self.step, self.elapsed, self.samples, self.best],
        }

    def restore(self, path: Path, device: torch.device, recipe: Recipe) -> None:
        """Go on from ``path``. ``UsageError`` if it is damaged or a run of another recipe."""
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            before = state.get("recipe", identity(recipe))  # older runs do not say
            counters = list(map(float, state["counters"]))
        except BROKEN as error:
            raise UsageError(f"{path} is damaged; without it the run begins anew") from error
        if before != identity(recipe):
            name = str(before).partition(" ")[0]
            raise UsageError(
                f"{path.parent} holds a run of recipe {name}, or of another network than recipe "
                f"{recipe.name} has now; give another --out"
            )
        try:
            self.net.load_state_dict(state["net"])
            self.ema.load_state_dict(state["ema"])
            self.optimizers.load_state_dict(state["optimizers"])
            self.generator.set_state(state["generator"].cpu())
        except BROKEN as error:
            raise UsageError(
                f"{path.parent} holds a run that recipe {recipe.name} cannot go on with: its "
                "network or what is trained of it is another; give another --out"
            ) from error
        self.step, self.elapsed, self.samples = int(counters[0]), counters[1], int(counters[2])
        self.best = counters[3]

    def save(self, path: Path, recipe: Recipe) -> None:
        partial = path.with_suffix(".partial")
        torch.save(self.state(recipe), partial)
        with partial.open("r+b") as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())
        partial.replace(path)

    def update_ema(self, decay: float) -> None:
        """The averages follow, faster while there are few steps; buffers are taken as they are."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        follow(list(self.ema.parameters()), list(self.net.parameters()), self.step)
        for kept, new in zip(self.ema.buffers(), self.net.buffers(), strict=True):
            kept.copy_(new)


def identity(recipe: Recipe) -> str:
    """What a run cannot change while it goes on: the recipe's name and its network."""
    return f"{recipe.name} {recipe.backbone} {json.dumps(dict(recipe.net), sort_keys=True)}"
