"""JSON that yoda keeps for itself in the cache and beside results: damaged notes are none."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from yoda_cli.files import read_small


def read_notes(path: Path) -> dict[str, Any]:
    """The object in a file of notes; empty where there is none, or no sound one."""
    try:
        return parse_notes(read_small(path))
    except (OSError, UnicodeDecodeError):
        return {}


def parse_notes(text: str | bytes) -> dict[str, Any]:
    """The object that a text is; empty where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def are_numbers(values: Iterable[object]) -> bool:
    """Whether all are finite numbers, none below 0."""
    return all(
        type(value) in (int, float) and 0 <= value < math.inf  # type: ignore[operator]
        for value in values
    )
