"""One picture from disk to disk: read, settle what the file decides, enlarge, write.

The three stages are apart so that a folder's pictures can be read and written while another is
computed. A result is written beside its final name and renamed.
"""

from __future__ import annotations

import io
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from yoda_cli.attention import LEARNED
from yoda_cli.attention.sources import find_source
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.devices.memory import peak_bytes, reset_peak
from yoda_cli.errors import OutputError, UsageError
from yoda_cli.files import digest_of, make_folder
from yoda_cli.files.overwriting import replacing
from yoda_cli.images import (
    Picture,
    encode_picture,
    fill_transparent,
    losses,
    made_by_yoda,
    read_picture,
    sweep_temporaries,
    write_atomically,
)
from yoda_cli.images.degradation import estimate
from yoda_cli.images.picture import ANIMATED
from yoda_cli.images.resize import as_floats, imresize
from yoda_cli.models.model import Model
from yoda_cli.upscaling.batch.inputs import STREAM
from yoda_cli.upscaling.checks import with_scale
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.pipeline import only_reduces, plan_picture, upscale_tensor
from yoda_cli.upscaling.provenance import provenance
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer, Result
from yoda_cli.upscaling.settings import Settings
from yoda_cli.upscaling.stable_source import hash_of_stable_file

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Item:
    """A picture to enlarge: ``source`` and ``target`` may be ``STREAM``; sizes are the input's.

    ``scale`` is the factor asked for, None for the model's own; ``replaces`` the hash of a file at
    the target that a manifest knows for a result.
    """

    source: Path
    target: Path
    kind: str
    width: int
    height: int
    frames: int = 1
    has_alpha: bool = False
    bits: int = 8
    scale: float | None = None
    accept_damaged: bool = False
    replaces: str = ""

    def is_ours(self, path: Path) -> bool:
        """Whether a file was made by yoda: by its mark, or because it is what ``replaces`` says."""
        return made_by_yoda(path) or (bool(self.replaces) and digest_of(path) == self.replaces)

    def settled(self, options: UpscaleOptions) -> UpscaleOptions:
        """``options`` with the factor for this picture."""
        return with_scale(options, self.scale)

    @property
    def is_reduced(self) -> bool:
        """Whether the result is smaller than the picture; a pixel model then never runs."""
        return self.scale is not None and self.scale < 1

    @property
    def reduces_bytes(self) -> bool:
        """Whether it is reduced without ever being held as floats."""
        return self.is_reduced and not (self.has_alpha or self.frames > 1)

    @property
    def is_animated(self) -> bool:
        """Whether all its frames are enlarged; a target of another kind holds the first."""
        return self.frames > 1 and self.kind in ANIMATED

    @property
    def frames_made(self) -> int:
        """How many frames its result has."""
        return self.frames if self.is_animated else 1

    @property
    def pixels(self) -> int:
        """What the picture costs, in input pixels."""
        return self.width * self.height * self.frames


@dataclass(frozen=True)
class Finished:
    """One picture that was written, and the settings it was made with.

    ``sha256`` is that of the bytes that were decoded, empty for standard input. Of an animation
    ``lr`` and ``result`` are the first frame's, and the counts those of all.
    """

    source: Path
    target: Path
    lr: Tensor
    result: Result
    size: tuple[int, int]
    notices: tuple[str, ...]
    settings: Settings
    frames: int = 1
    peak_bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Decoded:
    """A still picture, and the hash of the bytes it was decoded from."""

    picture: Picture
    sha256: str


@dataclass(frozen=True)
class Computed:
    """Everything that is left to write."""

    finished: Finished
    picture: Picture


def read(item: Item, stream: bytes | None = None, *, plain: bool = False) -> Decoded:
    """A picture, ``plain`` in NumPy's arrays; of an animation that its target cannot hold the first
    frame."""
    source = item.source if item.source != STREAM else stream
    assert source is not None
    with hash_of_stable_file(item.source) as digest:
        picture = read_picture(
            source, as_bytes=item.reduces_bytes, accept_damaged=item.accept_damaged, plain=plain
        )
    return Decoded(picture, digest)


def compute(
    item: Item, decoded: Decoded, model: Model, options: UpscaleOptions, observer: Observer
) -> Computed:
    """Enlarge a still picture."""
    reset_peak(model.device)
    picture = decoded.picture
    lr = visible_colors(picture)
    settings, said = resolve_for_picture(lr, model, item.settled(options))
    settings, said = as_watched(settings, said, observer)
    result = upscale_tensor(lr, model, settings, observer)
    done = finished_of(item, picture, result, model, settings, said, decoded.sha256)
    return Computed(done, with_result(picture, result))


def as_watched(
    settings: Settings, said: tuple[str, ...], observer: Observer
) -> tuple[Settings, tuple[str, ...]]:
    """The settings of a run that may be watched, as it will run, and what there is to say of it."""
    if not observer.whole:
        return settings, said
    if settings.tiles.block:
        said += ("--block is not followed: a picture that is watched stays whole",)
    return settings.with_block(0), said


def with_result(picture: Picture, result: Result) -> Picture:
    """An enlarged picture with what its file carried: transparency, metadata."""
    size = (int(result.image.shape[-2]), int(result.image.shape[-1]))
    alpha = None if picture.alpha is None else imresize(picture.alpha, size).clip(0, 1)
    return replace(picture, rgb=result.image, alpha=alpha)


def finished_of(
    item: Item, picture: Picture, result: Result, model: Model, settings: Settings,
    said: tuple[str, ...] = (), sha256: str = "",
) -> Finished:  # fmt: skip
    """What there is to say of a picture, or of an animation and its first frame."""
    lr = visible_colors(picture)
    notices = picture.notices + losses(picture, item.kind)
    notices += source_notices(lr, model, settings) + said
    if count := result.faces:
        notices += (f"{count} face{'s' if count > 1 else ''} restored",)
    if item.frames > 1 and not item.is_animated:
        notices += (f"{item.kind} holds no animation: the first of {item.frames} frames",)
    height, width = result.image.shape[-2:]
    return Finished(
        item.source, item.target, lr, result, (width, height), notices, settings,
        peak_bytes=peak_bytes(), sha256=sha256,
    )  # fmt: skip


def write(item: Item, computed: Computed, model: Model, writing: WriteOptions) -> Finished:
    """Encode, then write beside and rename, or to standard output."""
    done = computed.finished
    data = encode_picture(
        computed.picture, kind=item.kind, quality=writing.quality,
        strip_metadata=writing.strip_metadata, provenance=provenance(model, done.settings),
    )  # fmt: skip
    if item.target == STREAM:
        send(io.BytesIO(data))
        return done
    make_folder(item.target.parent)
    sweep_temporaries(item.target.parent)
    write_atomically(item.target, data, replacing(writing.existing, item.is_ours))
    return done


def send(file: BinaryIO) -> None:
    """What is left of a file, to standard output."""
    try:
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def visible_colors(picture: Picture) -> Tensor:
    """Its colours, those under full transparency taken from their neighbours."""
    return picture.rgb if picture.alpha is None else fill_transparent(picture.rgb, picture.alpha)


def look_ahead(
    item: Item, model: Model, options: UpscaleOptions, stream: bytes | None = None
) -> tuple[PicturePlan, Settings]:
    """The plan of a picture's first frame and pass, without running it."""
    source = item.source if stream is None else stream
    picture = read_picture(source, accept_damaged=item.accept_damaged, plain=model.is_plain)
    lr = visible_colors(picture)
    settings, _ = resolve_for_picture(lr, model, item.settled(options))
    return plan_picture(lr, model, settings), settings


def resolve_for_picture(
    rgb: Tensor, model: Model, options: UpscaleOptions
) -> tuple[Settings, tuple[str, ...]]:
    """``options`` resolved for a picture, and a notice where its degradation was estimated."""
    if only_reduces(model, options.scale):
        return resolve(options, model), ("made smaller: no network is run",)
    options, said = estimate_denoise(rgb, model, options)
    return resolve(options, model), said


def estimate_denoise(
    rgb: Tensor, model: Model, options: UpscaleOptions
) -> tuple[UpscaleOptions, tuple[str, ...]]:
    """``options`` with a number for ``denoise``, and a notice where it was estimated."""
    if options.denoise is not None:
        if options.denoise > 0 and not model.can_denoise:
            raise UsageError(
                f"model {model.name} was trained on clean pictures only; leave --denoise at 0"
            )
        return options, ()
    if not model.can_denoise:
        return replace(options, denoise=0.0), ()
    strength = estimate(rgb)
    notice = (f"denoise {strength:g} (estimated from the pixels)",) if strength else ()
    return replace(options, denoise=strength), notice


def source_notices(lr: Tensor, model: Model, settings: Settings) -> tuple[str, ...]:
    """What the attention source has to say about this picture."""
    mask = settings.mask
    if mask.source == LEARNED:
        return ()
    notice = find_source(mask.source, mask.heads or None, model.device).notice(as_floats(lr))
    return (notice,) if notice else ()
