"""The values that options take by name, for completion and for checks that load no torch.

Tables that load without torch are read; where a tuple repeats the keys of another, a test compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches

from yoda_cli.attention import NAMES
from yoda_cli.errors import YodaError
from yoda_cli.evaluation import metric_table

SOURCES = NAMES
METRICS = metric_table.NAMES
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ENGINES = ("local", "ray")
RUNTIMES = ("auto", "torch", "ncnn")
FORMATS = ("png", "jpg", "webp", "tif", "bmp", "avif", "gif")
PEERS = ("bicubic", "lanczos", "base", "plain", "shuffled", "faithful")


def nearest(name: str, known: Iterable[str], likeness: float = 0.6, other: str = "") -> str:
    """``Did you mean …?``, or all that is known, and what else may be given. Names of a likeness
    from 0 to 1 are near."""
    names = list(known)
    close = get_close_matches(name, names, 1, likeness)
    if close:
        return f"did you mean {close[0]}?"
    return f"use {', '.join(names)}{other}"


def models() -> dict[str, str]:
    """Every model's name and alias with what it is for, those that need no download first."""
    from yoda_cli.weights import load_registry

    entries = sorted(load_registry().models.values(), key=lambda entry: not entry.bundled)
    return {name: entry.summary for entry in entries for name in (entry.name, *entry.aliases)}


def among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """A completion: the names that begin with what was typed."""
    known = tuple(names)

    def complete(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    return complete


def complete_models(incomplete: str) -> list[tuple[str, str]]:
    """Models that begin so. A registry that cannot be read completes nothing."""
    try:
        return [pair for pair in models().items() if pair[0].startswith(incomplete)]
    except YodaError:
        return []


def complete_weights(incomplete: str) -> list[str]:
    """Models, data sets and files that begin so."""
    from yoda_cli.weights import load_registry

    try:
        registry = load_registry()
    except YodaError:
        return []
    return among([*models(), *registry.datasets, *registry.files])(incomplete)


def complete_datasets(incomplete: str) -> list[str]:
    """Data sets that begin so."""
    from yoda_cli.weights import load_registry

    try:
        return among(["sample", *load_registry().datasets])(incomplete)
    except YodaError:
        return []


def complete_recipes(incomplete: str) -> list[str]:
    """Recipes of the package that begin so, and the one of gain regressors."""
    import tomllib
    from importlib.resources import files

    text = (files("yoda_cli.training") / "recipes.toml").read_text(encoding="utf-8")
    return among([*tomllib.loads(text), "gain"])(incomplete)
