"""Damage that decoders pass over: pixels that the file says it has and does not hold.

Pillow fills what is missing with grey or black and says nothing. Only what is certain counts as
damage; a sound file of any maker is never called damaged.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image, TiffImagePlugin

from yoda_cli.errors import is_out_of_memory
from yoda_cli.images.deep import png_bytes, png_chunks

AT_ONCE = 1 << 20  # bytes unpacked at once
END_OF_IMAGE = b"\xff\xd9"
#: How libjpeg's warnings begin that are about pixels; others are about a header's version.
JPEG_WARNINGS = ("Corrupt JPEG data: ", "Inconsistent progression sequence")
OLD_JPEG = 6  # a TIFF compression that keeps its strips as it likes
JPEG, JPEG_TABLES = 7, 347
HEIGHT, COMPRESSION, STRIPS, SAMPLES, STRIP_ROWS, STRIP_BYTES = 257, 259, 273, 277, 278, 279
WIDTH, PLANAR, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 256, 284, 322, 323, 324, 325
SEPARATE_PLANES = 2


def damage_of(image: Image.Image, file: BinaryIO) -> str:
    """What of the pixels of an opened, not yet loaded file is missing or wrong; "" if nothing."""
    if image.format == "PNG":
        file.seek(0)
        return _png_damage(file.read())
    if image.format in ("JPEG", "MPO"):
        file.seek(0)
        return _jpeg_damage(file.read())
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff_damage(image, file)
    return ""


def _png_damage(data: bytes) -> str:
    """Every frame's rows are unpacked and counted; their checksum is looked at on the way."""
    for header, parts in _png_frames(data):
        expected = png_bytes(header)
        try:
            found = _unpacked_length(parts, expected)
        except zlib.error:
            return "its image data do not unpack to what was packed"
        if found < expected:
            return f"its image data end early, after {found:,} of {expected:,} bytes"
    return ""


def _png_frames(data: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    """(the body of an IHDR for it, its packed data) of every frame; a still has one."""
    whole, header, parts = b"", b"", list[bytes]()
    for name, body in png_chunks(data):
        if name == b"IHDR" and not whole:
            whole = header = body[:13]
        elif name == b"fcTL" and len(body) >= 12:
            if parts:
                yield header, parts
            header, parts = body[4:12] + whole[8:], []
        elif name == b"IDAT":
            parts.append(body)
        elif name == b"fdAT":
            parts.append(body[4:])
    yield header, parts


def _unpacked_length(parts: list[bytes], most: int) -> int:
    """Bytes that a deflated stream holds, counted up to a little more than ``most``."""
    unpacker, length = zlib.decompressobj(), 0
    for part in parts:
        left = part
        while left and not unpacker.eof and length <= most:
            length += len(unpacker.decompress(left, AT_ONCE))
            left = unpacker.unconsumed_tail
    return length + len(unpacker.flush())  # what a full buffer held back: a few bytes


def _jpeg_damage(data: bytes) -> str:
    """What libjpeg warns of while it decodes, at an eighth of the size: a code that no table has,
    blocks without data, data without blocks. Pillow and OpenCV keep that to themselves.

    A file may end without its end marker, and what cannot be decoded at all is not judged here.
    """
    try:
        import simplejpeg
    except ImportError as error:  # a machine that only trains need not have it
        if is_out_of_memory(error):
            raise
        return ""
    data += END_OF_IMAGE
    try:
        *_, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        kind = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(data, kind, fastdct=True, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        if is_out_of_memory(error):
            raise
        said = str(error)
        if said.startswith(JPEG_WARNINGS):
            return f"its image data are not whole: {said.removeprefix(JPEG_WARNINGS[0])}"
    return ""


def _tiff_damage(image: TiffImagePlugin.TiffImageFile, file: BinaryIO) -> str:
    """Whether there are as many strips or tiles as the size asks for, and JPEGs in them whole."""
    tags = image.tag_v2
    if tags.get(COMPRESSION) == OLD_JPEG:
        return ""
    planes = tags.get(SAMPLES, 1) if tags.get(PLANAR) == SEPARATE_PLANES else 1
    if TILES in tags:
        across, down = -(-tags[WIDTH] // tags[TILE_WIDTH]), -(-tags[HEIGHT] // tags[TILE_HEIGHT])
        name, found, expected = "tiles", tags[TILES], across * down * planes
    else:
        rows = min(tags.get(STRIP_ROWS, tags[HEIGHT]), tags[HEIGHT])
        name, found, expected = "strips", tags.get(STRIPS, ()), -(-tags[HEIGHT] // rows) * planes
    places = found if isinstance(found, tuple) else (found,)
    if len(places) < expected:
        return f"it holds {len(places)} of {expected} {name} of its pixels"
    return _damage_of_jpegs(tags, places, file) if tags.get(COMPRESSION) == JPEG else ""


def _damage_of_jpegs(
    tags: TiffImagePlugin.ImageFileDirectory_v2, places: tuple[int, ...], file: BinaryIO
) -> str:
    """What is wrong with the first damaged strip or tile; their tables stand apart, once."""
    lengths = tags.get(TILE_BYTES if TILES in tags else STRIP_BYTES, ())
    lengths = lengths if isinstance(lengths, tuple) else (lengths,)
    tables = bytes(tags.get(JPEG_TABLES, b""))[:-2]  # without an end marker
    for place, length in zip(places, lengths, strict=False):
        file.seek(place)
        part = file.read(length)
        if damage := _jpeg_damage(tables + part[2:] if tables else part):
            return damage
    return ""
