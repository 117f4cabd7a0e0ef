"""What ``yoda weights list`` and ``show`` print: rows for a person, a card for a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yoda_cli.cli import _render
from yoda_cli.files import size_text
from yoda_cli.weights import ModelEntry, Registry
from yoda_cli.weights.inventory import Row

TITLES = {"model": "Models", "file": "Weight files", "dataset": "Data sets"}
STATES = {"bundled": "ready", "cached": "ready", "to download": "download"}
#: What models are for, in the order in which the list shows them; other words come last.
USES = ("photographs", "faces", "drawings", "repair")
LEGEND = (
    "NC: not for commercial use. *: see its licence. by hand: for a person to fetch.",
    "More of one: yoda weights show NAME. Everything: yoda weights list --all",
)


def show_list(rows: Sequence[Row], kinds: Sequence[str]) -> None:
    """A table per kind, of models one per use, those that are ready first; names are never cut."""
    for kind in kinds:
        found = [row for row in rows if row.kind == kind]
        uses = sorted({row.use for row in found}, key=rank)
        for use in uses:
            members = [row for row in found if row.use == use]
            members.sort(key=lambda row: word_for(row) != "ready")
            title = f"{TITLES[kind]} for {use}" if use else TITLES[kind]
            lines = [
                (name_of(row), word_for(row), size(row.bytes), licence(row), row.summary)
                for row in members
            ]
            columns = ("name", "state", "size", "licence", "for")
            _render.table(title, columns, lines, cut="for")
    for line in LEGEND:
        _render.note(line)


def rank(use: str) -> int:
    """The place of a use in the list."""
    return USES.index(use) if use in USES else len(USES)


def word_for(row: Row) -> str:
    """Its state in a word or two."""
    return STATES.get(row.state, row.state)


def name_of(row: Row) -> str:
    """The shortest name first, then the others."""
    names = sorted((row.name, *row.aliases), key=len)
    return names[0] if len(names) == 1 else f"{names[0]} ({', '.join(names[1:])})"


def size(count: int | None) -> str:
    """Bytes as MB or GB."""
    return "?" if count is None else size_text(count)


def licence(row: Row) -> str:
    """The licence in a word: NC, a name, ``none``, or * where it takes more to say."""
    if row.noncommercial:
        return "NC"
    if row.licence in ("Apache-2.0", "MIT"):
        return row.licence
    return "none" if row.licence in ("none stated", "not stated") else "*"


def show_card(name: str, registry: Registry, rows: Sequence[Row], cards: Mapping[str, Any]) -> None:
    """Everything known of a name, as ``key: value`` lines."""
    for key, value in facts(name, registry, rows, cards):
        _render.fact(key, value)


def facts(
    name: str, registry: Registry, rows: Sequence[Row], cards: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """(key, value) of a model, a file or a data set, most important first."""
    row = next(row for row in rows if name in (row.name, *row.aliases))
    yield "name", name_of(row)
    yield "for", row.summary
    yield "state", f"{row.state}{f', {row.path}' if row.path else ''}"
    yield "size", size(row.bytes)
    yield "licence", row.licence + (" (not for commercial use)" if row.noncommercial else "")
    model = registry.models.get(row.name)
    if model is not None:
        yield from of_model(model)
    for part in row.files:
        of_file = next(other for other in rows if other.kind == "file" and other.name == part)
        yield "file", f"{part}: {size(of_file.bytes)}, {of_file.licence}, {of_file.state}"
    entry = registry.files.get(row.name)
    if entry is not None:
        yield "source", entry.source
        yield "SHA-256", entry.sha256 or "pinned at the first download"
        yield from (("address", url) for url in registry.urls(entry))
    yield from of_card(cards)


def of_model(model: ModelEntry) -> Iterator[tuple[str, str]]:
    """How a model enlarges when nothing is said, and where it comes from."""
    yield "enlarges", f"{model.scale} times"
    yield "trained with masks", "yes" if model.trained_with_yoda else "no; they are applied later"
    yield (
        "by default",
        f"--attention {model.attention} --lower-bound {model.lower_bound:g} "
        f"--steps {model.steps} --sampler {model.sampler}",
    )
    yield "source", model.source


def of_card(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a checkpoint says of itself, as far as it is prose or numbers."""
    for key in ("about", "data", "hardware"):
        if key in card:
            yield key, str(card[key])
    for limit in card.get("limits", ()):
        yield "limit", str(limit)
    for name, value in card.get("measured", {}).items():
        yield f"measured, {name}", in_words(value)


def in_words(value: object) -> str:
    """``psnr gain 1.35, ssim 0.7``."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{str(name).replace('_', ' ')} {number}" for name, number in value.items())


def card_in(model: ModelEntry) -> Mapping[str, Any]:
    """The card in a bundled checkpoint's header; empty for any other model."""
    if not model.bundled:
        return {}
    from safetensors import safe_open

    with safe_open(model.path, "np") as file:
        header = json.loads((file.metadata() or {}).get("yoda", "{}"))
    return dict(header.get("card", {}))
