"""Writing 16-bit PNG, which Pillow does only for grey: rows filtered and packed here."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from yoda_cli.images.deep import PNG_SIGNATURE, png_chunk, png_chunks

Bytes = npt.NDArray[np.uint8]

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
SLAB_BYTES = 1 << 22
PIXEL_CHUNKS = (b"IHDR", b"IDAT", b"IEND")


def encode_png_16(pixels: npt.NDArray[np.uint16], options: dict[str, Any]) -> bytes:
    """``pixels`` (H, W, C): grey, grey and alpha, RGB or RGBA; ``options`` as Pillow takes them."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    image_data = (png_chunk(b"IDAT", part) for part in _packed(pixels))
    return b"".join(
        [
            PNG_SIGNATURE,
            png_chunk(b"IHDR", header),
            _ancillary(options),
            *image_data,
            png_chunk(b"IEND", b""),
        ]
    )


def _ancillary(options: dict[str, Any]) -> bytes:
    """The chunks that Pillow writes for the same options."""
    small = io.BytesIO()
    Image.new("L", (1, 1)).save(small, "PNG", **options)
    return b"".join(
        png_chunk(name, body)
        for name, body in png_chunks(small.getvalue())
        if name not in PIXEL_CHUNKS
    )


def _packed(pixels: npt.NDArray[np.uint16]) -> Iterator[bytes]:
    height, width, channels = pixels.shape
    pixel = 2 * channels
    rows = max(1, SLAB_BYTES // (width * pixel))
    above = np.zeros(width * pixel, np.uint8)
    packer = zlib.compressobj(6)
    for top in range(0, height, rows):
        slab = pixels[top : top + rows].astype(">u2").view(np.uint8).reshape(-1, width * pixel)
        part = packer.compress(_filtered(slab, above, pixel).tobytes())
        above = slab[-1]
        if part:
            yield part
    yield packer.flush()


def _filtered(rows: Bytes, above: Bytes, pixel: int) -> Bytes:
    """Each row by the filter whose bytes are smallest, its number in front (PNG, clause 9)."""
    up = np.concatenate([above[None], rows[:-1]])
    left, corner = _shifted(rows, pixel), _shifted(up, pixel)
    average = ((left.astype(np.uint16) + up) >> 1).astype(np.uint8)
    guesses = (np.zeros_like(rows), left, up, average, _paeth(left, up, corner))
    tries = np.stack([rows - guess for guess in guesses])  # (5, rows, bytes)
    cost = np.minimum(tries, 0 - tries).sum(2, dtype=np.int64)
    best = cost.argmin(0)
    chosen = tries[best, np.arange(len(rows))]
    return np.concatenate([best[:, None].astype(np.uint8), chosen], axis=1)


def _shifted(rows: Bytes, pixel: int) -> Bytes:
    """Each byte's neighbour one pixel to the left, 0 at the edge."""
    moved = np.zeros_like(rows)
    moved[:, pixel:] = rows[:, :-pixel]
    return moved


def _paeth(left: Bytes, up: Bytes, corner: Bytes) -> Bytes:
    a, b, c = (x.astype(np.int16) for x in (left, up, corner))
    to_left, to_up, to_corner = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    take_left = (to_left <= to_up) & (to_left <= to_corner)
    return np.where(take_left, left, np.where(to_up <= to_corner, up, corner))
