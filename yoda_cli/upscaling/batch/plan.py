"""Many pictures: plan, order, workers, manifest, resume. Prints nothing; events go to callbacks.

The main process alone decides what is done and writes the manifest. Workers are processes with a
model each; one that dies is replaced and its picture done again, once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from yoda_cli.config import MAX_RESULT_PIXELS, UpscaleOptions, WriteOptions
from yoda_cli.errors import OutputError, YodaError, without_frames
from yoda_cli.files import make_folder, size_text
from yoda_cli.files.overwriting import Outputs, may_write
from yoda_cli.files.paths import is_folder
from yoda_cli.images import Header, peek, shown, sweep_temporaries
from yoda_cli.models.model import Model
from yoda_cli.upscaling.batch.inputs import STREAM, Found
from yoda_cli.upscaling.batch.manifest import NAME as MANIFEST
from yoda_cli.upscaling.batch.manifest import Manifest
from yoda_cli.upscaling.batch.named_files import digests_of
from yoda_cli.upscaling.batch.outputs import Naming, check_size, folder_for, target_of
from yoda_cli.upscaling.checks import named_scale
from yoda_cli.upscaling.forecast import check_memory, check_pixels, way_of
from yoda_cli.upscaling.picture import Item
from yoda_cli.upscaling.streaming import wants_stream
from yoda_cli.version import __version__

#: Of a PNG of a photograph (`scripts/measure_constants.py BYTES_PER_PIXEL`).
BYTES_PER_PIXEL = 1.5
PACKS = 4  # times: a JPEG takes a quarter of that and less; only what cannot fit is refused


@dataclass(frozen=True)
class Failure:
    """A picture that could not be done."""

    source: Path
    error: YodaError


@dataclass(frozen=True)
class Batch:
    """What a run will do: ``items`` longest first, ``done`` already there, ``failures`` known.

    ``manifests`` by output folder; ``settings`` is what decides the pixels, hashed; empty where
    there is no manifest.
    """

    items: Sequence[Item]
    done: Sequence[Item]
    failures: Sequence[Failure]
    settings: str
    manifests: dict[Path, Manifest]
    output_bytes: int

    def manifest_of(self, item: Item) -> Manifest | None:
        """The manifest whose folder holds the item's target."""
        return manifest_at(self.manifests, item.target)


def manifest_at(manifests: dict[Path, Manifest], target: Path) -> Manifest | None:
    """The manifest of the folder that ``target`` lies in."""
    return next((m for folder, m in manifests.items() if folder in target.parents), None)


@dataclass(frozen=True)
class Events:
    """What a caller hears; every callback may be left out.

    ``on_progress`` hears which share of a picture is done (of Ray's only a cut one's);
    ``on_notice`` what a person should know of the run as a whole.
    """

    on_finished: Callable[[Item, dict[str, Any]], None] = lambda item, record: None
    on_failure: Callable[[Failure], None] = lambda failure: None
    on_progress: Callable[[Item, float], None] = lambda item, share: None
    on_notice: Callable[[str], None] = lambda notice: None


def plan_batch(
    found: Sequence[Found], naming: Naming, model: Model, options: UpscaleOptions, *,
    stream: bytes | None = None, outputs: Outputs | None = None,
) -> Batch:  # fmt: skip
    """Headers, targets, collisions, what is already there; touches no file.

    ``outputs`` knows what else the command reads and writes.
    """
    outputs = outputs or Outputs(naming.writing.existing, [one.path for one in found])
    manifests = _manifests(found, naming)
    settings = settings_hash(model, options, naming.writing) if manifests else ""
    for folder in manifests:
        outputs.reserve(folder / MANIFEST, "the manifest")
    items: list[Item] = []
    failures: list[Failure] = []
    many = len(found) > 1
    for one in found:
        try:
            item = _item(one, naming, model, options, many=many, stream=stream)
            if item.target != STREAM:
                in_tree = one.root is not None
                if manifest := manifest_at(manifests, item.target):
                    item = replace(item, replaces=manifest.made(item.target))
                outputs.claim(item.target, shown(one.path), item.is_ours, makes_folder=in_tree)
            items.append(item)
        except YodaError as error:
            failures.append(Failure(one.path, without_frames(error) if many else error))
    batch = Batch(items, (), failures, settings, manifests, 0)
    done = [item for item in items if _is_done(item, batch)]
    there = set(done)
    left = sorted((item for item in items if item not in there), key=lambda item: -item.pixels)
    refused = refused_of(left)
    left = [item for item in left if item not in refused]
    failures += [Failure(item.source, error) for item, error in refused.items()]
    expected = sum(
        int(item.pixels * (item.scale or model.scale) ** 2 * BYTES_PER_PIXEL) for item in left
    )
    return replace(batch, items=left, done=done, output_bytes=expected)


def refused_of(items: Sequence[Item]) -> dict[Item, OutputError]:
    """Those whose folder may not be written to: said before any work, not after it."""
    folders = {item.target.parent for item in items if item.target != STREAM}
    closed = {folder for folder in folders if not may_write(folder)}
    return {
        item: OutputError(f"cannot write {shown(item.target)}: Permission denied")
        for item in items
        if item.target != STREAM and item.target.parent in closed
    }


def _item(
    one: Found, naming: Naming, model: Model, options: UpscaleOptions, *, many: bool,
    stream: bytes | None,
) -> Item:  # fmt: skip
    header, scale, naming = sized(one, naming, model.scale, options, stream)
    target, kind = target_of(one, header, naming, many=many)
    item = Item(
        one.path, target, kind, header.width, header.height, header.frames, header.has_alpha,
        header.bits, scale, options.accept_damaged,
    )  # fmt: skip
    way = way_of(model)
    check_pixels(shown(one.path), (header.width, header.height), naming.scale, way,
                 options.max_pixels, frames=item.frames_made)  # fmt: skip
    streamed = wants_stream(item, model, item.settled(options))
    if not (kind == "TIFF" and streamed):  # to BigTIFF
        check_size(header, kind, naming.scale)
    if not streamed:
        check_memory(item, naming.scale, way, header.kind)
    return item


def sized(
    one: Found, naming: Naming, native: int, options: UpscaleOptions, stream: bytes | None
) -> tuple[Header, float | None, Naming]:
    """What a picture's header says, the factor asked for, and how its result is named."""
    header = peek(one.path if one.path != STREAM else stream or b"")
    scale = named_scale(one.path, options, (header.width, header.height), native)
    naming = replace(naming, scale=float(native) if scale is None else scale)
    if one.path == STREAM:
        naming = replace(naming, output=naming.output or STREAM)
    return header, scale, naming


def _manifests(found: Sequence[Found], naming: Naming) -> dict[Path, Manifest]:
    """Of every folder that gets a folder's results, and with --skip-existing of any other."""
    folders = {folder_for(one.root, naming) for one in found if one.root is not None}
    if naming.writing.existing == "skip":
        if naming.output is not None and is_folder(naming.output):
            folders.add(naming.output)
        elif naming.output is None:
            folders |= {one.path.parent for one in found if one.root is None}
    return {folder: Manifest.load(folder) for folder in sorted(folders)}


def _is_done(item: Item, batch: Batch) -> bool:
    manifest = batch.manifest_of(item)
    return manifest is not None and manifest.has(item.source, item.target, batch.settings)


def settings_hash(model: Model, options: UpscaleOptions, writing: WriteOptions) -> str:
    """What decides the bytes of a result, but for its source: also what is in the files named."""
    asked = asdict(replace(options, max_pixels=MAX_RESULT_PIXELS))  # a bound changes no pixel
    facts = [
        __version__, *model.software, model.name, dict(model.card), asked,
        str(model.precision), asdict(replace(writing, existing="own")), digests_of(options),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def check_disk(batch: Batch) -> None:
    """Refuse a run whose results will not fit even if they pack ``PACKS`` times as well."""
    if not batch.items:
        return
    folder = next((p for p in batch.items[0].target.parents if is_folder(p)), None)
    if folder is None or batch.items[0].target == STREAM:
        return
    free = shutil.disk_usage(folder).free
    if batch.output_bytes / PACKS > free:
        raise OutputError(
            f"the results need about {size_text(batch.output_bytes)} and the disk of "
            f"{shown(folder)} has {size_text(free)}"
        )


def prepare(batch: Batch) -> None:
    """Make the output folders, and sweep what killed runs left there."""
    for folder in {item.target.parent for item in batch.items if item.target != STREAM}:
        if batch.manifests and any(f == folder or f in folder.parents for f in batch.manifests):
            make_folder(folder)
        sweep_temporaries(folder)


def report_failure(failure: Failure, events: Events) -> Failure:
    """Pass a failure on, and give it back."""
    events.on_failure(failure)
    return failure


def record_in_manifest(batch: Batch, item: Item, record: dict[str, Any], events: Events) -> None:
    """Enter a written picture in its manifest, then tell of it."""
    manifest = batch.manifest_of(item)
    if manifest is not None:
        manifest.add(item.source, item.target, batch.settings, record)
    events.on_finished(item, record)
