"""Pixels of more than 8 bits, which Pillow would cut to 8 without a word; read by OpenCV.

OpenCV gets only what decodes the pixels: a PNG rebuilt from its checked image data, a TIFF whose
orientation says 1. So nothing it does with other chunks and tags, in any version, changes a
picture or prints a line. Arrays are (H, W, C) float32 in [0, 1], channels RGB.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

Pixels = npt.NDArray[Any]

Values = npt.NDArray[np.float32]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD_BYTES = 4096
GREY_AND_ALPHA = 4
PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type

# First row and column, row and column step of each pass of an interlaced PNG.
ADAM7 = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)

BITS, PHOTOMETRIC, SAMPLES, PLANAR = 258, 262, 277, 284

EXTRA_SAMPLES = 338
WHITE_IS_ZERO, RGB = 0, 2

CONTIGUOUS = 1
PREMULTIPLIED = 1


def bits_of(image: Image.Image, file: BinaryIO) -> int:
    """Bits a channel that the file stores, 8 where it stores fewer."""
    if image.format == "PNG":
        return max(8, _head(file)[24])
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(8, *_numbers(image, BITS, 8))
    if image.format in ("AVIF", "HEIF"):
        head = _head(file)
        found = head.find(b"pixi")  # type, version and flags, number of channels, bits of each
        return max(8, head[found + 9]) if 0 < found < len(head) - 9 else 8
    return 8


def is_grey_alpha(image: Image.Image, file: BinaryIO) -> bool:
    """Whether the file is a 16-bit grey PNG with transparency, which Pillow calls RGBA."""
    return image.format == "PNG" and _head(file)[24:26] == bytes([16, 4])


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(HEAD_BYTES)


def read_deep(image: Image.Image, file: BinaryIO, *, fill_gaps: bool = False) -> Values | None:
    """Pixels as stored (not turned) of a file with more than 8 bits a channel.

    ``image`` is loaded already, so that its data are whole; or they may have gaps, filled with
    zeros where ``fill_gaps``. None: stored in a way that only Pillow
    reads. Raises ValueError for values that are neither 0 … 1 nor 0 … 2^bits − 1.
    """
    file.seek(0)
    if image.format == "PNG":
        return _read_png(image, file.read(), fill_gaps=fill_gaps)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _read_tiff(image, file.read())
    return None


def _read_png(image: Image.Image, data: bytes, *, fill_gaps: bool) -> Values:
    if PNG_CHANNELS[data[25]] == 1:
        values = _scaled(np.asarray(image), 16)
    else:
        values = _by_opencv(_bare_png(data, fill_gaps=fill_gaps))
    if data[25] == GREY_AND_ALPHA:
        values = values[..., [0, 3]]
    key = image.info.get("transparency")
    if key is None or values.shape[2] not in (1, 3):
        return values
    colour = np.atleast_1d(np.asarray(key)).astype(np.float32) / np.float32(65535)
    opaque = (values != colour).any(2, keepdims=True)
    return np.concatenate([values, opaque.astype(np.float32)], axis=2)


def _bare_png(data: bytes, *, fill_gaps: bool) -> bytes:
    """The same pixels without ancillary chunks and without bytes beyond the last row."""
    header, packed = b"", []
    for name, body in png_chunks(data):
        if name == b"IHDR":
            header = body[:10] + bytes([0, 0, body[12] != 0])  # the only methods there are
        elif name == b"IDAT":
            packed.append(body)
        elif packed:
            break
    length = png_bytes(header)
    rows = zlib.decompressobj().decompress(b"".join(packed), length)
    if len(rows) < length and not fill_gaps:
        raise ValueError("its image data end early")
    rows += bytes(length - len(rows))
    return PNG_SIGNATURE + b"".join(
        png_chunk(name, body)
        for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    )


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, body) of every whole chunk."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        yield name, data[position + 8 : position + 8 + length]
        position += 12 + length


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_bytes(header: bytes) -> int:
    """Bytes of all rows, each with its filter byte, from the body of IHDR."""
    width, height = struct.unpack_from(">II", header)
    bits = header[8] * PNG_CHANNELS.get(header[9], 1)
    passes = ADAM7 if header[12] else ((0, 0, 1, 1),)
    total = 0
    for top, left, down, right in passes:
        rows, columns = -(-(height - top) // down), -(-(width - left) // right)
        total += max(0, rows) * (1 + -(-columns * bits // 8)) if columns > 0 else 0
    return total


def _read_tiff(image: TiffImagePlugin.TiffImageFile, data: bytes) -> Values | None:
    bits = max(_numbers(image, BITS, 8))
    if image.mode == "F":
        return _unit_range(np.asarray(image, dtype=np.float32)[..., None])
    if image.mode.startswith("I;16"):
        values = _scaled(np.asarray(image), bits)
        is_white_zero = _numbers(image, PHOTOMETRIC, 1)[0] == WHITE_IS_ZERO
        return 1 - values if is_white_zero else values
    if image.mode == "I":
        raise ValueError("32-bit and signed integers are not read; convert it to 16 bits")
    if _numbers(image, PLANAR, CONTIGUOUS)[0] != CONTIGUOUS:
        raise ValueError("its channels lie in separate 16-bit planes; save it interleaved")
    if image.mode == "CMYK":
        return None
    return _read_colour_tiff(image, data)


def _read_colour_tiff(image: TiffImagePlugin.TiffImageFile, data: bytes) -> Values:
    samples = _numbers(image, SAMPLES, 1)[0]
    values = _by_opencv(data) if _numbers(image, PHOTOMETRIC, RGB)[0] == RGB else None
    if values is None or values.shape != (image.height, image.width, samples):
        raise ValueError("its 16-bit channels are of a kind that is not read; save it as RGB")
    if samples == 4 and image.mode != "RGBA":
        return values[..., :3]
    if samples == 4 and _numbers(image, EXTRA_SAMPLES, 2)[0] == PREMULTIPLIED:
        alpha = values[..., 3:]
        values[..., :3] /= np.where(alpha > 0, alpha, 1)
        return values.clip(0, 1)
    return values


def _numbers(image: TiffImagePlugin.TiffImageFile, tag: int, default: int) -> tuple[int, ...]:
    found = image.tag_v2.get(tag, default)
    return tuple(found) or (default,) if isinstance(found, tuple) else (found,)


def _unit_range(values: Values) -> Values:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"floating-point values must lie in 0 … 1, not {low:g} … {high:g}")
    return values


def _scaled(pixels: Pixels, bits: int) -> Values:
    """(…, H, W) or (…, C) integers → (…, C) in [0, 1]."""
    values = pixels.astype(np.float32) / np.float32(2**bits - 1)
    return values[..., None] if values.ndim == 2 else values


def _by_opencv(data: bytes) -> Values:
    import cv2

    # OpenCV 4 and 5 keep it in different places; 0 is silence.
    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    before = set_level(0)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        set_level(before)
    if pixels is None or pixels.dtype != np.uint16:
        raise ValueError("its 16-bit pixels cannot be decoded")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels[..., :3] = pixels[..., 2::-1]
    return _scaled(pixels, 16)
