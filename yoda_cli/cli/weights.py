"""``yoda weights``: what there is, where it is, and getting, checking and removing it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from yoda_cli.cli import _names, _render, _render_bars
from yoda_cli.cli._downloads import agree, still_to_do
from yoda_cli.cli._downloads import say as say_downloads
from yoda_cli.cli._options import CacheDir, Json, NoProgress, Offline, Quiet, RegistryFile, Yes
from yoda_cli.cli._room import check_room
from yoda_cli.errors import WeightsError, YodaError

app = typer.Typer(
    help="Models, weight files and data sets: list, download, verify, import, remove.",
    no_args_is_help=True,
)

Names = Annotated[
    list[str],
    typer.Argument(
        help="Models, files or data sets.", show_default=False,
        autocompletion=_names.complete_weights,
    ),
]  # fmt: skip


@app.command("list")
def list_(
    files: Annotated[bool, typer.Option("--files", help="List the weight files.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="List models, weight files and data sets.")
    ] = False,
    as_json: Json = False,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> None:
    """List the models: ready or not, size, licence, what they are for."""
    from yoda_cli.cli._weights_tables import TITLES, show_list
    from yoda_cli.weights import Cache, load_registry
    from yoda_cli.weights.inventory import inventory

    cache = Cache.default()
    rows = inventory(load_registry(), cache)
    if as_json:
        kinds = {"model": "models", "file": "files", "dataset": "datasets"}
        found = {key: [asdict(r) for r in rows if r.kind == kind] for kind, key in kinds.items()}
        _render.document({"schema": 1, "cache": str(cache.folder), **found}, indent=2)
        return
    show_list(rows, list(TITLES) if everything else ["file"] if files else ["model"])


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A model, a file or a data set.",
            show_default=False,
            autocompletion=_names.complete_weights,
        ),
    ],
    as_json: Json = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> None:
    """Show all that is known of a model, a file or a data set: its card."""
    from yoda_cli.cli._weights_tables import card_in, facts, show_card
    from yoda_cli.weights import Cache, load_registry
    from yoda_cli.weights.inventory import inventory

    known = load_registry()
    known.check_name(name)
    rows = inventory(known, Cache.default())
    model = next((m for m in known.models.values() if name in (m.name, *m.aliases)), None)
    card = card_in(model) if model else {}
    if as_json:
        pairs = [list(pair) for pair in facts(name, known, rows, card)]
        _render.document({"schema": 1, "facts": pairs, "card": card}, indent=2)
        return
    show_card(name, known, rows, card)


@app.command()
def pull(
    names: Names,
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be downloaded.")
    ] = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> None:
    """Download and verify everything behind a name; prints where it is."""
    from yoda_cli.weights import Cache, load_registry
    from yoda_cli.weights.inventory import missing, to_bring
    from yoda_cli.weights.inventory import pull as pull_name

    known, cache = load_registry(), Cache.default()
    wanted = [entry.name for name in names for entry in known.files_of(name)]
    away = missing(wanted, known, cache)
    if dry_run:
        away += to_bring(wanted, known, cache)
        say_downloads(away, json_lines=False, schema=1)
        left = still_to_do(away) or "all is there already"
        _render.note(f"{left}; nothing was downloaded", quiet=quiet)
        return
    agree(away, yes=yes, named=True)
    for name in names:
        with _render_bars.download(quiet=quiet, bar=not no_progress) as watch:
            paths = pull_name(name, known, cache, watch)
        for path in paths:
            _render.place(path)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names; everything cached if left out.")
    ] = None,
    as_json: Json = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> int:
    """Hash cached files again and compare; exit code 5 if one is damaged."""
    from yoda_cli.weights import Cache, load_registry

    known, cache = load_registry(), Cache.default()
    entries = [entry for name in names or [] for entry in known.files_of(name)]
    results: dict[str, str] = {}
    for entry in entries if names else known.files.values():
        try:
            path = cache.trusted(entry, thorough=True)
            if path is not None or names:
                results[entry.name] = "ok" if path else "not in the cache"
        except YodaError as error:
            results[entry.name] = str(error)
    if as_json:
        _render.document({"schema": 1, "files": results}, indent=2)
    else:
        for name, result in results.items():
            _render.result(f"{name}: {result}")
        if not results:
            _render.note("nothing is cached")
    return 0 if all(result == "ok" for result in results.values()) else WeightsError.exit_code


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Checkpoints in their own formats.")],
    as_name: Annotated[
        str | None, typer.Option("--as", help="Registry name, where the file does not tell.")
    ] = None,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> None:
    """Put files you have into the cache, told by their tensors; code in them is never run."""
    check_room()
    from yoda_cli.weights import Cache, load_registry
    from yoda_cli.weights.importing import import_file

    known, cache = load_registry(), Cache.default()
    for file in files:
        done = import_file(file, as_name, known, cache)
        pinned = f"; no published hash, pinned SHA-256 {done.sha256}" if done.pinned else ""
        _render.note(f"{file.name}: {done.description}, kept as {done.entry.name}{pinned}")
        if done.doubt:
            _render.note(f"{file.name}: this is not the published file: {done.doubt}")
        _render.place(done.path)


@app.command()
def path(names: Names, cache_dir: CacheDir = None, registry: RegistryFile = None) -> None:
    """Print where the verified files behind a name are."""
    from yoda_cli.weights import Cache, load_registry
    from yoda_cli.weights.inventory import cached_path

    known, cache = load_registry(), Cache.default()
    for found in [p for name in names for p in cached_path(name, known, cache)]:
        _render.place(found)


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> None:
    """Remove unfinished downloads, and files that yoda fetched and no registry names any more."""
    from yoda_cli.weights import Cache, load_registry
    from yoda_cli.weights.tidying import prune as prune_cache

    gone = prune_cache(load_registry(), Cache.default(), dry_run=dry_run)
    for path, _ in gone:
        _render.place(path)
    would = "would free" if dry_run else "freed"
    _render.note(f"{would} {sum(size for _, size in gone) / 1e6:,.1f} MB")


@app.command()
def rm(
    names: Names,
    forget: Annotated[
        bool, typer.Option("--forget", help="Drop the pinned hash too: accept another file.")
    ] = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> None:
    """Remove downloaded files; their pinned hashes stay unless --forget."""
    from yoda_cli.weights import Cache, load_registry
    from yoda_cli.weights.tidying import remove

    known, cache = load_registry(), Cache.default()
    for name in names:
        files = known.files_of(name)
        if not files:
            raise WeightsError(f"{name} comes with the package and cannot be removed")
        freed = sum(remove(entry, cache, forget=forget) for entry in files)
        _render.note(f"{name}: freed {freed / 1e6:,.1f} MB")
