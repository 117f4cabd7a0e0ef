"""Options that several commands share; those about weights become environment variables.

They hold for the one run: ``yoda_cli.cli.run`` puts the environment back.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def _offline(asked: bool) -> None:
    if asked:
        os.environ["YODA_OFFLINE"] = "1"


def _cache_dir(folder: Path | None) -> None:
    if folder is not None:
        os.environ["YODA_CACHE_DIR"] = str(folder)


def _registry(path: Path | None) -> None:
    if path is not None:
        others = os.environ.get("YODA_REGISTRY", "")
        os.environ["YODA_REGISTRY"] = os.pathsep.join(filter(None, [others, str(path)]))


Offline = Annotated[
    bool, typer.Option("--offline", callback=_offline, help="Never use the network.")
]
CacheDir = Annotated[
    Path | None,
    typer.Option("--cache-dir", callback=_cache_dir, help="Folder of downloaded weights."),
]
RegistryFile = Annotated[
    Path | None,
    typer.Option("--registry", callback=_registry, help="A weights.toml of your own, added."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
