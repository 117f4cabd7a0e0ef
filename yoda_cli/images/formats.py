"""The file formats yoda writes: their names, and what each can and cannot hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from yoda_cli.errors import OutputError
from yoda_cli.files import shown
from yoda_cli.images.header import Header
from yoda_cli.images.opening import load_plugins
from yoda_cli.images.picture import Metadata, Picture

JPEG_SEGMENT = 65_533  # bytes of one marker segment
JPEG_XMP = 65_502  # the same less the XMP signature
FOUR_GIB = 1 << 32
TIFF_OVERHEAD = 1 << 20  # directories and metadata


@dataclass(frozen=True)
class Format:
    """``side`` is the largest width or height. AVIF's is what its readers accept by default,
    JPEG's what its library accepts (the format itself ends at 65,535)."""

    suffixes: tuple[str, ...]
    side: int | None = None
    bytes_per_pixel: int = 0  # of files that end at 4 GiB
    has_alpha: bool = True
    has_16_bits: bool = False
    has_colours: bool = True
    holds: frozenset[str] = frozenset()


ALL = frozenset({"exif", "icc", "xmp", "dpi"})
FORMATS = {
    "PNG": Format((".png", ".apng"), has_16_bits=True, holds=ALL | {"text"}),
    "JPEG": Format(
        (".jpg", ".jpeg", ".jpe", ".jfif"), side=65_500, has_alpha=False, holds=ALL | {"comment"}
    ),
    "WEBP": Format((".webp",), side=16_383, holds=ALL),
    "TIFF": Format((".tif", ".tiff"), bytes_per_pixel=8, has_16_bits=True, holds=ALL),
    "BMP": Format((".bmp", ".dib"), bytes_per_pixel=3, has_alpha=False, holds=frozenset({"dpi"})),
    "AVIF": Format((".avif",), side=32_768, holds=ALL),
    "GIF": Format((".gif",), side=65_535, has_colours=False, holds=frozenset({"comment"})),
}

#: What is taken for a picture by its name: what is written, and HEIF, which is read only.
SUFFIXES = frozenset(s for form in FORMATS.values() for s in form.suffixes) | {".heic", ".heif"}

BY_SUFFIX = {suffix: kind for kind, form in FORMATS.items() for suffix in form.suffixes}


def format_of(path: Path) -> str:
    """The file format a name asks for."""
    kind = BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        known = " ".join(sorted(BY_SUFFIX))
        raise OutputError(
            f"{shown(path)}: no known picture format; give a name ending in one of {known}"
        )
    if not can_write(kind):
        raise OutputError(f"{shown(path)}: this Pillow cannot write {kind}; choose another format")
    return kind


def can_write(kind: str) -> bool:
    """Whether this Pillow was built with the format; AVIF may be missing."""
    load_plugins()
    return kind in Image.SAVE


def output_format_for(header: Header, suffix: str) -> tuple[str, str]:
    """(format, suffix): the input's own where it can hold the picture, else PNG.

    ``suffix`` is the input's; it is kept where it belongs to the format. An animation stays what
    it is, a GIF too.
    """
    kind = header.kind
    form = FORMATS.get(kind)
    if (
        form is None
        or (not form.has_colours and header.frames < 2)
        or (header.has_alpha and not form.has_alpha)
        or (header.bits == 16 and not form.has_16_bits)
        or not can_write(kind)
    ):
        return "PNG", ".png"
    return kind, suffix if BY_SUFFIX.get(suffix.lower()) == kind else form.suffixes[0]


def check_format_size(kind: str, width: int, height: int) -> None:
    """Refuse a size that the format cannot hold, before any work is done for it."""
    form = FORMATS[kind]
    if form.side is not None and max(width, height) > form.side:
        raise OutputError(
            f"{kind} holds at most {form.side} pixels a side, not {width}×{height}; "
            "choose another format, PNG or TIFF"
        )
    if width * height * form.bytes_per_pixel + TIFF_OVERHEAD > FOUR_GIB and form.bytes_per_pixel:
        raise OutputError(
            f"a {kind} file ends at 4 GiB, too small for {width}×{height}; choose another format"
        )


def losses(picture: Picture, kind: str) -> tuple[str, ...]:
    """What a file of format ``kind`` will not keep of the picture; lines for the user."""
    form = FORMATS[kind]
    found = []
    if not form.has_alpha and picture.alpha is not None and bool((picture.alpha < 1).any()):
        found.append(f"{kind} has no transparency: flattened onto white")
    if not form.has_16_bits and picture.bits == 16:
        found.append(f"{kind} holds 8 bits a channel: rounded from 16")
    if not form.has_colours:
        found.append(f"{kind} holds 256 colours: reduced")
    kept = holdable(picture.metadata, kind)
    for name in ("exif", "icc", "xmp", "text", "comment"):
        if getattr(picture.metadata, name) and not getattr(kept, name):
            found.append(f"{kind} cannot hold the picture's {NAMES[name]}: dropped")
    return tuple(found)


NAMES = {
    "exif": "EXIF",
    "icc": "colour profile",
    "xmp": "XMP",
    "text": "PNG text",
    "comment": "comment",
}


def holdable(metadata: Metadata, kind: str) -> Metadata:
    """The part of the metadata that a file of format ``kind`` can hold."""
    holds = FORMATS[kind].holds
    text = dict(metadata.text) if "text" in holds else {}
    if metadata.comment and "text" in holds:
        text.setdefault("Comment", metadata.comment.decode("utf-8", "replace"))
    fits = kind != "JPEG" or len(metadata.exif) <= JPEG_SEGMENT
    xmp_fits = kind != "JPEG" or len(metadata.xmp) <= JPEG_XMP
    return Metadata(
        kind=metadata.kind,
        mode=metadata.mode,
        exif=metadata.exif if "exif" in holds and fits else b"",
        icc=metadata.icc if "icc" in holds else b"",
        dpi=metadata.dpi if "dpi" in holds else None,
        xmp=metadata.xmp if "xmp" in holds and xmp_fits else b"",
        text=text,
        comment=metadata.comment if "comment" in holds and len(metadata.comment) < 65_000 else b"",
        is_lossless=metadata.is_lossless,
    )
