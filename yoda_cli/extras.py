"""Optional parts of the installation: whether they are there, and how to get them."""

from __future__ import annotations

import importlib.util

from yoda_cli.errors import WeightsError


def need(module: str, extra: str) -> None:
    """Refuse to go on without an optional package, saying what to install."""
    if importlib.util.find_spec(module) is None:
        raise WeightsError(f"{module} is not installed: pip install 'yoda-cli[{extra}]'")
