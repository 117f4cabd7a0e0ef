"""A whole training: the stages of a recipe, each from the best checkpoint of the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from yoda_cli.config import Recipe
from yoda_cli.models.checkpoint import read_header
from yoda_cli.training.loop import Status, train
from yoda_cli.training.recipes import check_recipe


def train_stages(
    stages: Sequence[Recipe],
    data: Path,
    folder: Path,
    *,
    device: torch.device,
    card: Mapping[str, Any],
    init: Path | None = None,
    on_status: Callable[[Recipe, Status], None] = lambda recipe, status: None,
) -> Path:
    """Train (or go on) stage by stage, in folders of their names; the last one's best checkpoint.

    A single stage has ``folder`` to itself. A checkpoint's card tells what it started from.
    """
    for stage in stages:  # the last one's fault is not found after days
        check_recipe(stage)
    for stage in stages:

        def told(status: Status, stage: Recipe = stage) -> None:
            on_status(stage, status)

        init = train(
            stage,
            data,
            folder if len(stages) == 1 else folder / stage.name,
            device=device,
            card=card if init is None else {**card, "before": history(init)},
            init=init,
            on_status=told,
        )
    assert init is not None, "there is at least one stage"
    return init


def history(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of its own training, for those that go on from it."""
    card = read_header(checkpoint).card
    return {key: card[key] for key in ("name", "training", "before") if key in card}
