"""Recipes: how a checkpoint is made, by name."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

from yoda_cli.attention import LEARNED, SOURCES
from yoda_cli.config import Recipe, SampleDefaults, TrainOptions
from yoda_cli.errors import UsageError
from yoda_cli.files import read_small
from yoda_cli.models import BACKBONES
from yoda_cli.models.base import build_config
from yoda_cli.models.model import wrong_default
from yoda_cli.training.objective import CONSTANT

KEYS = {"backbone", "net", "train", "sample", "then"}


def load_recipe(name: str, path: Path | None = None) -> Recipe:
    """The recipe ``name`` from ``path``, or from those that come with the package."""
    source = files("yoda_cli.training") / "recipes.toml" if path is None else path
    try:
        text = source.read_text(encoding="utf-8") if path is None else read_small(path)
        tables = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{source} holds no recipes: {error}") from error
    if name not in tables:
        raise UsageError(f"unknown recipe {name!r}; there are {', '.join(sorted(tables))}")
    table = tables[name]
    try:
        if unknown := sorted(set(table) - KEYS):
            raise ValueError(f"unknown key {unknown[0]}; there are {', '.join(sorted(KEYS))}")
        net = table["net"]
        if isinstance(net, str):  # another recipe's
            net = tables[net]["net"]
        elif "like" in net:  # another recipe's, but for what is said here
            net = {**tables[net["like"]]["net"], **net}
            del net["like"]
        return Recipe(
            name,
            str(table["backbone"]),
            dict(net),
            build_config(TrainOptions, table.get("train", {})),
            build_config(SampleDefaults, table.get("sample", {})),
            str(table.get("then", "")),
        )
    except KeyError as error:
        raise UsageError(f"recipe {name} of {source} lacks {error}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"recipe {name} of {source} is wrong: {error}") from error


def check_recipe(recipe: Recipe) -> None:
    """Refuse what would be found after minutes, or never; ``UsageError`` names the key."""
    options, maps = recipe.train, recipe.train.attention
    if options.steps <= 0 and options.minutes <= 0:
        raise UsageError(f"recipe {recipe.name} never ends: give --steps or --minutes")
    known = (LEARNED, CONSTANT, *SOURCES)
    low, high = options.lower_bound
    scale = recipe.net.get("scale", 4)
    allowed = {
        "backbone": (recipe.backbone in BACKBONES, f"one of {', '.join(BACKBONES)}"),
        "net.scale": (type(scale) is int and 1 <= scale <= 16, "1 … 16"),
        "batch": (options.batch >= 1, "1 or more"),
        "patch": (options.patch >= 8, "8 or more"),
        "rate": (options.rate > 0, "above 0"),
        "muon_rate": (options.muon_rate > 0, "above 0"),
        "final_rate": (0 <= options.final_rate <= 1, "0 … 1"),
        "clip": (options.clip > 0, "above 0"),
        "ema": (0 <= options.ema < 1, "0 or more, below 1"),
        "lower_bound": (0 < low <= high <= 1, "two numbers in (0, 1], the smaller one first"),
        "chains": (bool(options.chains) and min(options.chains) >= 0, "numbers, 0 or more"),
        "attention": (bool(maps) and set(maps) <= set(known), f"weights of {', '.join(known)}"),
        "attention weights": (min(maps.values(), default=0) >= 0 < sum(maps.values()), "positive"),
        "scored": (options.scored >= 0, "0 or more"),
        "candidates": (options.candidates >= 1, "1 or more"),
        "degrade": (0 <= options.degrade <= 1, "0 … 1"),
        "reduce": (bool(options.reduce) and min(options.reduce) >= 1, "factors of 1 or more"),
        "drawings": (options.drawings >= 0, "0 or more"),
        "seed": (0 <= options.seed < 1 << 63, "0 … 2^63-1"),
        "validation_pictures": (options.validation_pictures >= 1, "1 or more"),
        "validation_steps": (options.validation_steps >= 1, "1 or more"),
    }
    for key, (is_right, what) in allowed.items():
        if not is_right:
            raise UsageError(f"recipe {recipe.name}: {key} must be {what}")
    if wrong := wrong_default(recipe.sample):
        raise UsageError(f"recipe {recipe.name}: sample.{wrong[0]}: {wrong[1]}")


def stages_of(name: str, path: Path | None = None) -> list[Recipe]:
    """The recipe ``name`` and those that follow it, each bounded by its own steps."""
    stages: list[Recipe] = []
    while name:
        if any(stage.name == name for stage in stages):
            raise UsageError(f"recipe {name} follows itself")
        stages.append(load_recipe(name, path))
        name = stages[-1].then
    return stages
