"""Recipes: how a checkpoint is made, by name."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

from yoda_cli.config import Recipe, SampleDefaults, TrainOptions
from yoda_cli.errors import UsageError
from yoda_cli.models import build_config


def load_recipe(name: str, path: Path | None = None) -> Recipe:
    """The recipe ``name`` from ``path``, or from those that come with the package."""
    source = files("yoda_cli.training") / "recipes.toml" if path is None else path
    tables = tomllib.loads(source.read_text(encoding="utf-8"))
    if name not in tables:
        raise UsageError(f"unknown recipe {name!r}; there are {', '.join(sorted(tables))}")
    table = tables[name]
    try:
        net = table["net"]
        if isinstance(net, str):  # another recipe's
            net = tables[net]["net"]
        return Recipe(
            name,
            str(table["backbone"]),
            dict(net),
            build_config(TrainOptions, table.get("train", {})),
            build_config(SampleDefaults, table.get("sample", {})),
            str(table.get("then", "")),
        )
    except (KeyError, ValueError) as error:
        raise UsageError(f"recipe {name} is wrong: {error}") from error


def stages_of(name: str, path: Path | None = None) -> list[Recipe]:
    """The recipe ``name`` and those that follow it, each bounded by its own steps."""
    stages: list[Recipe] = []
    while name:
        if any(stage.name == name for stage in stages):
            raise UsageError(f"recipe {name} follows itself")
        stages.append(load_recipe(name, path))
        name = stages[-1].then
    return stages
