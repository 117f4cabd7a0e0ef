"""What exists: models, weight files, data sets, read from ``weights.toml`` and checked.

A packaged registry comes first; a person's own (``--registry``, or ``weights.toml`` in yoda's
config folder) may add entries and mirrors. Every error names file and line.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.files import read_small
from yoda_cli.files.paths import is_file
from yoda_cli.weights.entries import (
    PACKAGE,
    DatasetEntry,
    FileEntry,
    ModelEntry,
    contradictions,
)
from yoda_cli.weights.guesses import ALL_NAMES, MODELS_ARE, hint, near

MAX_STEPS, MAX_SCALE = 100_000, 16
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}")


@dataclass(frozen=True)
class Registry:
    """All that is known by name."""

    models: Mapping[str, ModelEntry]
    files: Mapping[str, FileEntry]
    datasets: Mapping[str, DatasetEntry]
    mirrors: Mapping[str, tuple[str, ...]]

    def model(self, name: str) -> ModelEntry:
        """The model called ``name``, by its own name or an alias."""
        named = {alias: m for m in self.models.values() for alias in (m.name, *m.aliases)}
        if name not in named:
            raise UsageError(f"unknown model {name!r}; {hint(name, named, MODELS_ARE)}")
        return named[name]

    def files_of(self, name: str) -> list[FileEntry]:
        """The files behind the name of a model, an alias, a data set or a file."""
        for entry in self.files.values():
            if name in (entry.name, *entry.aliases):
                return [entry]
        if name in self.datasets:
            return [self.files[key] for key in self.datasets[name].files]
        for model in self.models.values():
            if name in (model.name, *model.aliases):
                return [self.files[key] for key in model.files.values()]
        self.check_name(name)
        return []

    def check_name(self, name: str) -> None:
        """Refuse a name that no model, file or data set has; says the nearest three."""
        aliases = [alias for model in self.models.values() for alias in model.aliases]
        aliases += [alias for entry in self.files.values() for alias in entry.aliases]
        known = [*self.models, *aliases, *self.datasets, *self.files]
        if name not in known:
            close = near(name, known)[:3]
            meant = f"did you mean {' or '.join(close)}?" if close else ALL_NAMES
            raise UsageError(f"nothing is called {name!r}; {meant}")

    def urls(self, entry: FileEntry) -> list[str]:
        """Where to look, in order: the entry's own addresses, then those through mirrors."""
        found = list(entry.urls)
        for url in entry.urls:
            for prefix, others in self.mirrors.items():
                if url.startswith(prefix):
                    found += [other + url.removeprefix(prefix) for other in others]
        return list(dict.fromkeys(found))


def mistake(entry: ModelEntry, key: str, what: str) -> WeightsError:
    """An error about a model's entry, at its place in the registry that it came from."""
    path = Path(entry.origin) if entry.origin else registry_path()
    return Document.read(path).error(what, "models", entry.name, key)


def packaged_paths() -> tuple[Path, Path]:
    """Where the registry of this project may stand: in the package, or in the checkout."""
    return PACKAGE / "weights.toml", PACKAGE.parent / "weights.toml"


def registry_path() -> Path:
    """The packaged registry, or the checkout's."""
    for path in packaged_paths():
        if is_file(path):
            return path
    raise WeightsError("weights.toml is missing: this installation is incomplete")


def own_registries() -> list[Path]:
    """A person's own: yoda's config folder, then ``YODA_REGISTRY`` (``--registry``)."""
    import platformdirs

    configured = Path(platformdirs.user_config_dir("yoda")) / "weights.toml"
    named = [Path(p) for p in os.environ.get("YODA_REGISTRY", "").split(os.pathsep) if p]
    return ([configured] if is_file(configured) else []) + named


def load_registry(paths: Sequence[Path] | None = None) -> Registry:
    """The packaged registry and a person's own, or just ``paths``, as one."""
    paths = [registry_path(), *own_registries()] if paths is None else paths
    return _read_together(tuple((path, _state_of(path)) for path in paths))


def _state_of(path: Path) -> tuple[int, ...]:
    """What changes when a file does; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4)
def _read_together(paths: tuple[tuple[Path, tuple[int, ...]], ...]) -> Registry:
    models: dict[str, ModelEntry] = {}
    files: dict[str, FileEntry] = {}
    datasets: dict[str, DatasetEntry] = {}
    mirrors: dict[str, tuple[str, ...]] = {}
    for path, _ in paths:
        document = Document.read(path)
        document.add("models", ModelEntry, models)
        document.add("files", FileEntry, files)
        document.add("datasets", DatasetEntry, datasets)
        for prefix, others in document.tables.get("mirrors", {}).items():
            if not isinstance(others, list) or not all(isinstance(o, str) for o in others):
                raise document.error("a mirror is a list of prefixes", "mirrors", prefix)
            mirrors[prefix] = (*mirrors.get(prefix, ()), *others)
        document.check(Registry(models, files, datasets, mirrors))
    return Registry(models, files, datasets, mirrors)


Entry = TypeVar("Entry", ModelEntry, FileEntry, DatasetEntry)


@dataclass(frozen=True)
class Document:
    """One registry file: its tables, and its text for the line numbers of errors."""

    path: Path
    text: str
    tables: Mapping[str, Mapping[str, Any]]

    @staticmethod
    def read(path: Path) -> Document:
        """Parsed; its top level may hold models, files, datasets and mirrors."""
        try:
            text = read_small(path)
            document = Document(path, text, tomllib.loads(text))
        except (OSError, UnicodeDecodeError) as error:
            raise WeightsError(f"{path} cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:  # its message has line and column
            raise WeightsError(f"{path}: {error}") from error
        except RecursionError as error:
            raise WeightsError(f"{path}: tables within tables, too deep to be meant") from error
        for kind, table in document.tables.items():
            if kind not in ("models", "files", "datasets", "mirrors"):
                raise document.error("expected models, files, datasets or mirrors", kind)
            if not isinstance(table, dict):
                raise document.error(f"{kind} is not a table", kind)
        return document

    def line(self, kind: str, name: str = "", key: str = "") -> int:
        """Where a table, or a key in it, stands; 1 if it cannot be found."""
        quoted = rf"(?:{re.escape(name)}|[\"']{re.escape(name)}[\"'])"
        header = re.compile(rf"\s*\[\s*{kind}\s*\.\s*{quoted}\s*\]" if name else rf"\s*\[?{kind}\b")
        inside = rf"\s*[\"']?{re.escape(key)}[\"']?\s*="
        found = 0
        if kind == "mirrors":
            header, inside = re.compile(r"\s*\[\s*mirrors"), rf"\s*{quoted}\s*="
            key = name
        for number, line in enumerate(self.text.splitlines(), 1):
            if found and re.match(inside, line) and key:
                return number
            if found and line.lstrip().startswith("["):
                break
            if not found and header.match(line):
                found = number
        return found or 1

    def error(self, what: str, kind: str, name: str = "", key: str = "") -> WeightsError:
        """An error at its place."""
        where = ".".join(part for part in (kind, name, key) if part)
        return WeightsError(f"{self.path}:{self.line(kind, name, key)}: {where}: {what}")

    def add(self, kind: str, build: type[Entry], found: dict[str, Entry]) -> None:
        """Read every table of ``kind`` into ``found``."""
        for name, table in self.tables.get(kind, {}).items():
            if not SAFE_NAME.fullmatch(name):
                raise self.error("a name has letters, digits and . _ + - only", kind, name)
            if name in found:
                raise self.error("this name is taken", kind, name)
            found[name] = self._entry(kind, build, name, table)

    def _entry(self, kind: str, build: type[Entry], name: str, table: Any) -> Entry:
        if not isinstance(table, dict):
            raise self.error("not a table", kind, name)
        known = {f.name: f for f in fields(build) if f.name not in ("name", "origin")}
        for key, value in table.items():
            if key not in known:
                raise self.error(f"unknown key; {hint(key, known)}", kind, name, key)
            if not _fits(value, str(known[key].type)):
                raise self.error(f"{value!r} is not {known[key].type}", kind, name, key)
        for key, f in known.items():
            no_default = f.default is MISSING and f.default_factory is MISSING
            if no_default and key not in table:
                raise self.error(f"{key} is missing", kind, name)
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        make: Callable[..., Entry] = build
        return make(name=name, origin=self.origin, **values)

    @cached_property
    def origin(self) -> str:
        """What entries say of where they stand; nothing in the packaged registry."""
        packaged = [path.resolve() for path in packaged_paths()]
        return "" if self.path.resolve() in packaged else str(self.path.absolute())

    def check(self, registry: Registry) -> None:
        """Refuse what contradicts itself, at its line."""
        seen: dict[str, str] = {}
        for model in registry.models.values():
            self._check_model(model, registry)
            for alias in (model.name, *model.aliases):
                if alias in seen:
                    what = f"{alias!r} already names {seen[alias]}"
                    raise self.error(what, "models", model.name, "aliases")
                seen[alias] = model.name
        for entry in registry.files.values():
            for alias in (entry.name, *entry.aliases):
                if alias in seen:
                    what = f"{alias!r} already names {seen[alias]}"
                    raise self.error(what, "files", entry.name, "aliases")
                seen[alias] = entry.name
            for key, what in contradictions(entry):
                raise self.error(what, "files", entry.name, key)
        for dataset in registry.datasets.values():
            for name in dataset.files:
                if name not in registry.files:
                    raise self.error(f"no file {name!r}", "datasets", dataset.name, "files")
            if not dataset.files and not dataset.manual:
                raise self.error("needs files or manual", "datasets", dataset.name)

    def _check_model(self, model: ModelEntry, registry: Registry) -> None:
        if bool(model.bundled) == bool(model.files):
            raise self.error("needs either bundled or files", "models", model.name)
        for name in model.files.values():
            if name not in registry.files:
                raise self.error(f"no file {name!r}", "models", model.name, "files")
        if not 0 < model.lower_bound <= 1:
            raise self.error("must be in (0, 1]", "models", model.name, "lower_bound")
        if not (1 <= model.steps <= MAX_STEPS and 1 <= model.scale <= MAX_SCALE):
            what = f"steps and scale are at least 1, and at most {MAX_STEPS:,} and {MAX_SCALE}"
            raise self.error(what, "models", model.name)


def _fits(value: object, kind: str) -> bool:
    """Whether a TOML value is of a field's type."""
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if kind == "Mapping[str, Any]":
        return isinstance(value, dict)
    if kind.startswith("Mapping"):
        return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    if isinstance(value, bool):
        return kind == "bool"
    allowed: dict[str, Any] = {
        "str": str,
        "int": int,
        "int | None": int,
        "float": (int, float),
        "bool": bool,
    }
    return isinstance(value, allowed[kind])
