"""Writing TIFF at 8 or 16 bits with its metadata; Pillow writes no 16-bit colour.

Little-endian, deflated strips with horizontal differencing, which every reader knows.
"""

from __future__ import annotations

import io
import itertools
import zlib
from typing import Any

import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from yoda_cli.images.exif import (
    EXIF_DIRECTORY,
    GPS_DIRECTORY,
    INCHES,
    ORIENTATION,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
)
from yoda_cli.images.picture import Metadata

Pixels = npt.NDArray[Any]

STRIP_BYTES = 1 << 20
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262

STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_LENGTHS, PLANAR = 273, 277, 278, 279, 284

PREDICTOR, EXTRA_SAMPLES, XMP, ICC = 317, 338, 700, 34675

BLACK_IS_ZERO, RGB = 1, 2

DEFLATE, CONTIGUOUS, DIFFERENCING, STRAIGHT_ALPHA = 8, 1, 2, 2

BYTE, UNDEFINED = 1, 7


def encode_tiff(pixels: Pixels, metadata: Metadata) -> bytes:
    """``pixels`` (H, W, C) uint8 or uint16: grey, grey and alpha, RGB or RGBA."""
    height, width, channels = pixels.shape
    rows = max(1, STRIP_BYTES // (width * channels * pixels.itemsize))
    strips = [_deflated(pixels[top : top + rows]) for top in range(0, height, rows)]
    lengths = [len(strip) for strip in strips]
    directory = ImageFileDirectory_v2()
    _describe(directory, metadata)
    directory[WIDTH], directory[HEIGHT] = width, height
    directory[BITS] = (8 * pixels.itemsize,) * channels
    directory[COMPRESSION], directory[PREDICTOR] = DEFLATE, DIFFERENCING
    directory[PHOTOMETRIC] = BLACK_IS_ZERO if channels < 3 else RGB
    directory[SAMPLES], directory[PLANAR] = channels, CONTIGUOUS
    if channels in (2, 4):
        directory[EXTRA_SAMPLES] = STRAIGHT_ALPHA
    directory[STRIP_ROWS], directory[STRIP_LENGTHS] = rows, tuple(lengths)
    # Counted from the end of the directory: saving it adds where that is.
    directory[STRIP_OFFSETS] = tuple(itertools.accumulate(lengths[:-1], initial=0))
    out = io.BytesIO()
    directory.save(out)
    return out.getvalue() + b"".join(strips)


def _deflated(strip: Pixels) -> bytes:
    """Each sample less the one to its left, wrapping around."""
    little = strip.astype(strip.dtype.newbyteorder("<"))
    little[:, 1:] -= strip[:, :-1]
    return zlib.compress(little.tobytes(), 6)


def _describe(directory: ImageFileDirectory_v2, metadata: Metadata) -> None:
    """What is known beside the pixels; EXIF's main tags belong to the first directory."""
    if metadata.exif:
        exif = Image.Exif()
        exif.load(metadata.exif)
        for tag, value in exif.items():
            if tag not in (EXIF_DIRECTORY, GPS_DIRECTORY, ORIENTATION):
                directory[tag] = value
        for tag in (EXIF_DIRECTORY, GPS_DIRECTORY):
            if inner := exif.get_ifd(tag):
                directory[tag] = dict(inner)
    if metadata.dpi:
        directory[X_RESOLUTION] = IFDRational(round(metadata.dpi[0] * 10_000), 10_000)
        directory[Y_RESOLUTION] = IFDRational(round(metadata.dpi[1] * 10_000), 10_000)
        directory[RESOLUTION_UNIT] = INCHES
    if metadata.xmp:
        directory.tagtype[XMP] = BYTE
        directory[XMP] = metadata.xmp
    if metadata.icc:
        directory.tagtype[ICC] = UNDEFINED
        directory[ICC] = metadata.icc
