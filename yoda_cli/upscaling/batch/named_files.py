"""What stands in the files that options name: a result is of them as much as of its picture."""

from __future__ import annotations

from pathlib import Path

from yoda_cli.config import UpscaleOptions
from yoda_cli.files import digest_of
from yoda_cli.files.paths import is_file
from yoda_cli.weights import Cache, load_registry

MODELS = ("model", "where")
OTHERS = ("attention", "stage1", "regressor")


def digests_of(options: UpscaleOptions) -> dict[str, list[str]]:
    """The SHA-256 of every file behind an option's value, by the option's name.

    Of a model that is downloaded the hashes that its files must have.
    """
    found = {name: _digests(getattr(options, name), is_model=name in MODELS)
             for name in (*MODELS, *OTHERS)}  # fmt: skip
    return {name: digests for name, digests in found.items() if digests}


def _digests(value: str | None, *, is_model: bool) -> list[str]:
    if value is None:
        return []
    if is_file(Path(value)):
        return [digest_of(Path(value))]
    if not is_model:
        return []
    registry, cache = load_registry(), Cache.default()
    entry = registry.model(value)
    if entry.bundled:
        return [digest_of(entry.path)]
    return [cache.expected(registry.files[name]) for name in sorted(entry.files.values())]
