"""What a picture file is, from its header alone: for planning before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from yoda_cli.images.deep import bits_of
from yoda_cli.images.exif import orientation_of, size_as_stored
from yoda_cli.images.opening import KINDS, Source, opened
from yoda_cli.images.picture import ANIMATED
from yoda_cli.images.reading import guarded

ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap the sides


@dataclass(frozen=True)
class Header:
    """``width`` and ``height`` are those of the upright picture; ``frames`` 1 for a still."""

    kind: str
    width: int
    height: int
    frames: int
    has_alpha: bool
    bits: int


def peek(source: Source) -> Header:
    """Raises what ``read_picture`` raises for a header that it would refuse."""
    with opened(source) as (image, file):
        kind = image.format or ""
        frames = int(getattr(image, "n_frames", 1)) if kind in ANIMATED else 1
        width, height = size_as_stored(image)
        orientation, _ = guarded(lambda: orientation_of(image), 1)
        if orientation in TURNED:
            width, height = height, width
        has_alpha = image.mode in ALPHA_MODES or "transparency" in image.info
        bits = 16 if bits_of(image, file) > 8 else 8
        return Header(KINDS.get(kind, kind), width, height, frames, has_alpha, bits)
