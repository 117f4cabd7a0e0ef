"""Benchmark sets: names and folders → pairs of HR and LR pictures. Reads no pixels.

A folder holds HR pictures, or two folders of HR and LR that pair by name. Without LR pictures the
benchmark makes them itself (MATLAB's bicubic).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yoda_cli.errors import NotFoundError, UsageError, WeightsError
from yoda_cli.files import one_line, real
from yoda_cli.files.paths import entries_of, is_folder
from yoda_cli.images.formats import SUFFIXES
from yoda_cli.weights import Cache, Registry, Watch
from yoda_cli.weights.entries import FileEntry
from yoda_cli.weights.inventory import dataset_folder, is_unpacked, missing, pull

SAMPLE = Path(__file__).parent.parent / "samples" / "hr"
HR_FOLDERS = ("HR", "hr", "GT", "gt", "GTmod12", "original", "DIV2K_valid_HR")
LR_FOLDERS = ("LR_bicubic/X{scale}", "DIV2K_valid_LR_bicubic/X{scale}", "LRbicx{scale}", "LR", "lr",
              "X{scale}")  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One picture; ``lr`` is None where it is to be made. ``problem``: why it cannot be used."""

    name: str
    hr: Path
    lr: Path | None
    problem: str = ""


@dataclass(frozen=True)
class Dataset:
    """A named list of pairs, in name order."""

    name: str
    pairs: tuple[Pair, ...]


def downloads_of_sets(
    names: Sequence[str], root: Path | None, registry: Registry, cache: Cache
) -> list[FileEntry]:
    """What ``find_dataset`` would download for these names; opens no connection."""
    own = {one.name.lower() for one in entries_of(root)} if root and is_folder(root) else set()
    entries = [
        entry
        for name in names
        if not is_folder(Path(name)) and (entry := registry.datasets.get(name.lower()))
    ]
    return missing(
        [
            file
            for entry in entries
            if entry.name not in own and not is_unpacked(dataset_folder(entry.name, cache))
            for file in entry.files
        ],
        registry,
        cache,
    )


def find_dataset(
    wanted: str, scale: int, root: Path | None, registry: Registry, cache: Cache, watch: Watch
) -> Dataset:
    """The set called ``wanted``: ``sample``, one of the registry, or a folder.

    A set of the registry that cannot be downloaded is looked for as a folder of that name in
    ``root``; ``Set5``, ``set5`` and ``SET5`` are the same.
    """
    if wanted == "sample":
        return Dataset("sample", pairs_of(SAMPLE, scale))
    folder = Path(wanted)
    if is_folder(folder):
        return Dataset(one_line(real(folder).name.lower()), pairs_of(folder, scale))
    entry = registry.datasets.get(wanted.lower())
    if entry is None:
        known = ", ".join(["sample", *registry.datasets])
        if len(folder.parts) > 1:
            raise NotFoundError(f"no such folder: {wanted}")
        raise UsageError(f"unknown data set {wanted!r}; there are {known}, or give a folder")
    for candidate in entries_of(root) if root is not None and is_folder(root) else []:
        if is_folder(candidate) and candidate.name.lower() == entry.name:
            return Dataset(entry.name, pairs_of(candidate, scale))
    if not entry.files:
        raise WeightsError(
            f"{entry.name} cannot be downloaded ({entry.source}): {entry.manual}, "
            f"or --data-root FOLDER that holds {entry.name}/"
        )
    try:
        (place,) = pull(entry.name, registry, cache, watch)
    except WeightsError as error:
        raise WeightsError(
            f"{error}. Or get it by hand from {entry.source} and give its folder: "
            f"--dataset FOLDER, or --data-root FOLDER that holds {entry.name}/"
        ) from error
    lr = place / entry.lr if entry.scale == scale else None
    return Dataset(entry.name, pair_by_name(place / entry.hr, lr, scale))


def pairs_of(folder: Path, scale: int) -> tuple[Pair, ...]:
    """The pairs in a folder, whichever way it is laid out."""
    hr = next((folder / name for name in HR_FOLDERS if is_folder(folder / name)), folder)
    names = (name.format(scale=scale) for name in LR_FOLDERS)
    lr = next((folder / name for name in names if is_folder(folder / name)), None)
    return pair_by_name(hr, lr if hr != folder else None, scale)


def pair_by_name(hr: Path, lr: Path | None, scale: int) -> tuple[Pair, ...]:
    """HR pictures with the LR of the same name (``0801.png`` with ``0801x4.png``)."""
    highs = pictures(hr)
    if not highs:
        raise NotFoundError(f"no pictures in {hr}")
    if lr is None:
        return tuple(Pair(path.stem, path, None) for path in highs)
    tail = re.compile(rf"[_-]?(x{scale}|lr|LR)$")
    by_name = {tail.sub("", path.stem): path for path in highs}
    lows = {tail.sub("", path.stem): path for path in pictures(lr)}
    pairs = []
    for name in sorted(by_name.keys() | lows.keys()):
        high, low = by_name.get(name), lows.get(name)
        problem = f"no picture of this name in {lr if low is None else hr}"
        pairs.append(Pair(name, high or hr, low, "" if high and low else problem))
    return tuple(pairs)


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, in name order; none if it does not exist."""
    if not is_folder(folder):
        return []
    return [p for p in entries_of(folder) if p.suffix.lower() in SUFFIXES]
