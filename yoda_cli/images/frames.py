"""Reading animations one frame at a time: an animated PNG, WebP, GIF or AVIF."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from yoda_cli.errors import InputError
from yoda_cli.images.exif import orientation_of
from yoda_cli.images.opening import (
    Source,
    check_size,
    decoding,
    file_of,
    identified,
    name_of,
    opened,
)
from yoda_cli.images.picture import Picture, as_tensors
from yoda_cli.images.pixels import read_8
from yoda_cli.images.reading import (
    damage_notice,
    guarded,
    metadata_of,
    plain_picture_of,
    refuse_damage,
)


@dataclass(frozen=True)
class AnimationHeader:
    """What is known of all frames before the first is enlarged: every one was decoded once.

    ``has_alpha``: any of them has transparency; ``is_grey``: none has colour. ``accepts_damage``
    and ``notices`` say that some could not be decoded as a whole.
    """

    milliseconds: tuple[float, ...]
    plays: int
    has_alpha: bool
    is_grey: bool
    accepts_damage: bool = False
    notices: tuple[str, ...] = ()


def scan_animation(source: Path | bytes, *, accept_damaged: bool = False) -> AnimationHeader:
    """Decode every frame once, so that a damaged one is met before any work is done."""
    try:
        return _scanned(source, accept_damaged=False)
    except InputError as error:
        if not accept_damaged:
            raise
        notices = (damage_notice(error),)
    return replace(_scanned(source, accept_damaged=True), accepts_damage=True, notices=notices)


def _scanned(source: Path | bytes, *, accept_damaged: bool) -> AnimationHeader:
    with opened(source) as (image, file):
        if not accept_damaged:
            refuse_damage(image, file, name_of(source))
        plays = _plays(image)
    milliseconds, has_alpha, is_grey = [], False, True
    for frame, shown in frames_of(source, accept_damaged=accept_damaged, plain=True):
        milliseconds.append(shown)
        has_alpha |= frame.alpha is not None
        is_grey &= frame.is_grey
    return AnimationHeader(tuple(milliseconds), plays, has_alpha, is_grey)


def _plays(image: Image.Image) -> int:
    return int(image.info.get("loop", 1 if image.format == "GIF" else 0))


def frames_of(
    source: Source, *, accept_damaged: bool = False, plain: bool = False
) -> Generator[tuple[Picture, float]]:
    """Every frame, its colours as bytes, and how many milliseconds it is shown.

    Between two frames nothing is locked and other files may be decoded. ``plain`` gives NumPy's
    arrays in place of tensors, and needs no torch.
    """
    with contextlib.ExitStack() as held:
        file, name = held.enter_context(file_of(source))
        with decoding(file, name):
            image = held.enter_context(identified(file, name))
            count = int(getattr(image, "n_frames", 1))
            check_size(image.size, count, name)
            orientation, _ = guarded(lambda: orientation_of(image), 1)
            size = image.size
        first = 1 if image.info.get("default_image") else 0  # an APNG's stand-in is no frame
        for index in range(first, count):
            with decoding(file, name, accept_damaged=accept_damaged):
                image.seek(index)
                check_size(image.size, count, name)  # a GIF may grow
                frame = _frame(image, file, size, orientation)
                milliseconds = float(image.info.get("duration", 0))
            yield frame if plain else as_tensors(frame), milliseconds


def _frame(image: Image.Image, file: BinaryIO, size: tuple[int, int], orientation: int) -> Picture:
    image.load()
    metadata, _ = metadata_of(image, file, orientation)
    return plain_picture_of(read_8(image.crop((0, 0, *size))), orientation, metadata, ())
