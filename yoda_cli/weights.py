"""The registry of models: a name → where its weights are. Knows no torch and no network.

``weights.toml`` stands at the top of a checkout and inside the package of an installed wheel.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from yoda_cli.errors import UsageError, WeightsError

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class ModelEntry:
    """One table of the registry. ``bundled`` is a file in the package's ``checkpoints``."""

    name: str
    summary: str
    bundled: str
    backbone: str
    scale: int
    licence: str
    trained_with_yoda: bool

    @property
    def path(self) -> Path:
        """The checkpoint on disk."""
        path = PACKAGE / "checkpoints" / self.bundled
        if not path.is_file():
            raise WeightsError(f"{path} is missing: this installation is incomplete")
        return path


def registry_path() -> Path:
    """The packaged registry, or the checkout's."""
    for path in (PACKAGE / "weights.toml", PACKAGE.parent / "weights.toml"):
        if path.is_file():
            return path
    raise WeightsError("weights.toml is missing: this installation is incomplete")


def load_registry(path: Path | None = None) -> dict[str, ModelEntry]:
    """All models by name; unknown or missing keys are errors."""
    path = path or registry_path()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    if set(tables) != {"models"}:
        raise WeightsError(f"{path}: expected the table 'models', found {sorted(tables)}")
    return {name: _entry(name, table, path) for name, table in tables["models"].items()}


def _entry(name: str, table: dict[str, Any], path: Path) -> ModelEntry:
    known = {f.name for f in fields(ModelEntry)} - {"name"}
    if wrong := set(table) ^ known:
        raise WeightsError(f"{path}: models.{name}: unknown or missing keys {sorted(wrong)}")
    return ModelEntry(name, **table)


def find_entry(name: str) -> ModelEntry:
    """The model called ``name``."""
    registry = load_registry()
    if name in registry:
        return registry[name]
    close = get_close_matches(name, registry, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(registry))}"
    raise UsageError(f"unknown model {name!r}; {hint} Or give a checkpoint file")
