"""EXIF and TIFF directories: orientation, resolution, and numbers patched where they stand.

A patched block keeps every other byte, so maker notes and the offsets inside them stay whole.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin

PREFIX = b"Exif\0\0"
WIDTH, HEIGHT = 0x0100, 0x0101
ORIENTATION = 0x0112
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128

EXIF_DIRECTORY, GPS_DIRECTORY = 0x8769, 0x8825

PIXEL_WIDTH, PIXEL_HEIGHT = 0xA002, 0xA003

SHORT, LONG = 3, 4

INCHES, CENTIMETRES = 2, 3

# Of a TIFF's first directory only what describes the picture is EXIF, the rest is how it is
# stored: description, make, model, software, date, artist, host, copyright, rating, IPTC, and
# Windows' title, comment, author, keywords, subject.
DESCRIPTIVE = (
    *(0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, 0x4746, 0x83BB),
    *(0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F),
)


@dataclass(frozen=True)
class _Layout:
    """How a directory is packed: classic TIFF (and EXIF), or BigTIFF."""

    order: str
    length: struct.Struct
    entry: struct.Struct
    offset: struct.Struct


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    position: int  # of the value


def with_numbers(
    block: bytes, numbers: Mapping[int, int], *, drop_thumbnail: bool = False
) -> bytes:
    """A TIFF structure whose single SHORT and LONG values of the given tags are replaced.

    Looks in the first directory and its EXIF directory; absent tags stay absent. Raises
    struct.error where the structure is damaged.
    """
    data = bytearray(block)
    layout, first = _open(data)
    entries, end = _directory(data, layout, first)
    for entry in entries:
        if entry.tag == EXIF_DIRECTORY:
            (start,) = layout.offset.unpack_from(data, entry.position)
            entries = entries + _directory(data, layout, start)[0]
    for entry in entries:
        if entry.tag in numbers and entry.count == 1 and entry.kind in (SHORT, LONG):
            number = struct.Struct(layout.order + ("H" if entry.kind == SHORT else "I"))
            largest = 2 ** (8 * number.size) - 1
            number.pack_into(data, entry.position, min(numbers[entry.tag], largest))
    if drop_thumbnail:
        layout.offset.pack_into(data, end, 0)
    return bytes(data)


def _open(data: bytearray) -> tuple[_Layout, int]:
    """The layout and where the first directory starts."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        raise struct.error("no TIFF structure")
    is_big = bytes(data[2:4]) in (b"\x2b\0", b"\0\x2b")
    formats = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I")
    layout = _Layout(order, *(struct.Struct(order + f) for f in formats))
    (first,) = layout.offset.unpack_from(data, 8 if is_big else 4)
    return layout, first


def _directory(data: bytearray, layout: _Layout, start: int) -> tuple[list[_Entry], int]:
    """Its entries, and where its link to the next directory stands."""
    if start >= len(data):
        raise struct.error("directory beyond the end")
    (length,) = layout.length.unpack_from(data, start)
    first, size = start + layout.length.size, layout.entry.size
    end = first + length * size
    layout.offset.unpack_from(data, end)
    entries = []
    for position in range(first, end, size):
        tag, kind, count, value = layout.entry.unpack_from(data, position)
        entries.append(_Entry(tag, kind, count, position + size - len(value)))
    return entries, end


def orientation_of(image: Image.Image) -> int:
    """1 … 8; 1 where there is none or it means nothing."""
    value = image.getexif().get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def size_as_stored(image: Image.Image) -> tuple[int, int]:
    """Width and height; those of a TIFF Pillow gives as they are upright."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2[WIDTH], image.tag_v2[HEIGHT]
    return image.size


def exif_of(image: Image.Image) -> bytes:
    """The file's EXIF block, orientation set to 1, without its thumbnail; empty if there is none.

    Of a block with damaged parts the sound ones, packed anew. Raises what damage makes Pillow
    raise, or struct.error.
    """
    block = _tiff_exif(image) if image.format == "TIFF" else image.info.get("exif")
    if block is None and "Raw profile type exif" in image.info:
        block = image.getexif().tobytes()
    if not block:
        return b""
    block = with_numbers(block.removeprefix(PREFIX), {ORIENTATION: 1}, drop_thumbnail=True)
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        exif = Image.Exif()
        exif.load(PREFIX + block)
        sound = exif.tobytes()
    return sound if complaints else PREFIX + block


def _tiff_exif(image: Image.Image) -> bytes:
    source, exif = image.getexif(), Image.Exif()
    for tag in DESCRIPTIVE:
        if tag in source:
            exif[tag] = source[tag]
    for tag in (EXIF_DIRECTORY, GPS_DIRECTORY):
        if directory := source.get_ifd(tag):
            exif[tag] = dict(directory)
    return exif.tobytes() if len(exif) else b""


def resolution_of(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch (x, y) that the EXIF block says."""
    exif = image.getexif()
    if X_RESOLUTION not in exif or Y_RESOLUTION not in exif:
        return None
    unit = exif.get(RESOLUTION_UNIT, INCHES)
    if unit not in (INCHES, CENTIMETRES):
        return None
    factor = 2.54 if unit == CENTIMETRES else 1.0
    return float(exif[X_RESOLUTION]) * factor, float(exif[Y_RESOLUTION]) * factor


def with_size(block: bytes, width: int, height: int) -> bytes:
    """The block saying the picture's new size where it says one."""
    if not block:
        return b""
    numbers = {PIXEL_WIDTH: width, PIXEL_HEIGHT: height}
    return PREFIX + with_numbers(block.removeprefix(PREFIX), numbers)


def with_resolution(block: bytes, dpi: tuple[float, float]) -> bytes:
    """The block saying ``dpi``, for formats that have no other place; kept if it says one."""
    exif = Image.Exif()
    if block:
        exif.load(block)
    if X_RESOLUTION in exif:
        return block
    exif[X_RESOLUTION], exif[Y_RESOLUTION] = dpi
    exif[RESOLUTION_UNIT] = INCHES
    return exif.tobytes()
