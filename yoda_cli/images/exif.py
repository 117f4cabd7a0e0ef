"""EXIF and TIFF directories: orientation, resolution, and numbers patched where they stand.

A patched block keeps every other byte, so maker notes and their inner offsets stay whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from PIL import Image

PREFIX = b"Exif\0\0"
ORIENTATION = 0x0112
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
XMP, ICC = 0x02BC, 0x8773
EXIF_DIRECTORY, GPS_DIRECTORY = 0x8769, 0x8825
PIXEL_WIDTH, PIXEL_HEIGHT = 0xA002, 0xA003
SHORT, LONG = 3, 4
CENTIMETRES = 3

# Of a TIFF's first directory only what describes the picture is EXIF; the rest says how it is
# stored. Description, make, model, software, date, artist, host, copyright, rating, IPTC and
# Windows' title, comment, author, keywords, subject.
DESCRIPTIVE = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, 0x4746, 0x83BB}
DESCRIPTIVE |= {0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F, EXIF_DIRECTORY, GPS_DIRECTORY}


@dataclass(frozen=True)
class _Layout:
    """Byte order and field sizes: classic TIFF (and EXIF), or BigTIFF."""

    order: str
    is_big: bool

    @property
    def count(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.is_big else "H"))

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.order + ("HHQ8s" if self.is_big else "HHI4s"))

    @property
    def offset(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.is_big else "I"))


def with_numbers(
    block: bytes, numbers: Mapping[int, int], *, drop_thumbnail: bool = False
) -> bytes:
    """A TIFF structure whose single SHORT and LONG values of the given tags are replaced.

    Looks in the first directory and its EXIF directory; absent tags stay absent. Raises
    struct.error where the structure is damaged.
    """
    data = bytearray(block)
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        raise struct.error("no TIFF structure")
    layout = _Layout(order, data[2:4] in (b"\x2b\0", b"\0\x2b"))
    (first,) = layout.offset.unpack_from(data, 8 if layout.is_big else 4)
    end = _patch(data, layout, first, numbers)
    for position, tag, _, _, value in list(_entries(data, layout, first)):
        if tag == EXIF_DIRECTORY:
            _patch(data, layout, layout.offset.unpack(value)[0], numbers)
            del position
    if drop_thumbnail:
        layout.offset.pack_into(data, end, 0)
    return bytes(data)


def _entries(
    data: bytearray, layout: _Layout, start: int
) -> Iterator[tuple[int, int, int, int, bytes]]:
    """(position, tag, type, count, value bytes) of a directory."""
    (length,) = layout.count.unpack_from(data, start)
    position = start + layout.count.size
    for _ in range(length):
        yield position, *layout.entry.unpack_from(data, position)
        position += layout.entry.size


def _patch(data: bytearray, layout: _Layout, start: int, numbers: Mapping[int, int]) -> int:
    """Replace values in one directory; returns where its link to the next one stands."""
    position = start + layout.count.size
    for position, tag, kind, count, _ in _entries(data, layout, start):
        if tag in numbers and count == 1 and kind in (SHORT, LONG):
            number = struct.Struct(layout.order + ("H" if kind == SHORT else "I"))
            value = layout.entry.size - layout.offset.size + position
            number.pack_into(data, value, min(numbers[tag], 2 ** (8 * number.size) - 1))
        position += layout.entry.size
    layout.offset.unpack_from(data, position)
    return position
