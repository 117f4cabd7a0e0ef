"""Damage that decoders pass over: pixels that the file says it has and does not hold.

Pillow fills what is missing with grey or black and says nothing. Only what is certain counts as
damage; a sound file of any maker is never called damaged.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from yoda_cli.images.deep import png_bytes, png_chunks

AT_ONCE = 1 << 20  # bytes unpacked at once
#: A marker inside entropy-coded data that is neither a stuffed byte nor a restart.
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
BASELINE = (0xC0, 0xC1)
HUFFMAN_FRAMES = (*BASELINE, 0xC2)
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
FILLING = bytes(range(1, 128)) * 64  # stands where the end was; no marker is in it
SMALLER = 8  # baseline JPEG decodes to an eighth without its details
OLD_JPEG = 6  # a TIFF compression that keeps its strips as it likes
HEIGHT, COMPRESSION, STRIPS, SAMPLES, STRIP_ROWS = 257, 259, 273, 277, 278
WIDTH, PLANAR, TILE_WIDTH, TILE_HEIGHT, TILES = 256, 284, 322, 323, 324
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
        return _tiff_damage(image)
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
    """Whether the decoder was still hungry at the end marker: other bytes before it are eaten.

    A whole picture is decoded to the same pixels whatever stands between its last block and the
    end. Arithmetic coding may read on beyond its end, and is not judged.
    """
    kind, end = _end_of_jpeg(data)
    if kind not in HUFFMAN_FRAMES or end < 0:
        return ""
    reduced = kind in BASELINE
    as_it_is = _jpeg_pixels(data[:end] + data[end : end + 2], reduced=reduced)
    longer = _jpeg_pixels(data[:end] + FILLING + data[end : end + 2], reduced=reduced)
    if np.array_equal(as_it_is, longer):
        return ""
    rows = np.nonzero((as_it_is != longer).reshape(len(as_it_is), -1).any(1))[0]
    return f"its image data end early, at about {100 * rows[0] // len(as_it_is)} % of its height"


def _jpeg_pixels(data: bytes, *, reduced: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if reduced:
            image.draft(image.mode, (-(-image.width // SMALLER), -(-image.height // SMALLER)))
        return np.asarray(image)


def _end_of_jpeg(data: bytes) -> tuple[int, int]:
    """(the kind of its frame, where the end marker of the first picture stands or −1)."""
    position, kind = 2, 0
    while found := MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            return kind, found.end() - 2
        if marker in WITHOUT_LENGTH or position + 2 > len(data):
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            kind = marker
        position += struct.unpack_from(">H", data, position)[0]
    return kind, -1


def _tiff_damage(image: TiffImagePlugin.TiffImageFile) -> str:
    """Whether there are as many strips or tiles as the size asks for."""
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
    count = len(found) if isinstance(found, tuple) else 1
    return f"it holds {count} of {expected} {name} of its pixels" if count < expected else ""
