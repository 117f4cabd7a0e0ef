"""Pictures that need not be held: read a few rows at a time, by pyvips, into scratch.

Only what it reads as Pillow does: PNG, JPEG and TIFF of 8 bits, grey or RGB. Interlaced PNG and
progressive JPEG are decoded as a whole, there is no other way.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from yoda_cli.devices.memory import Scratch, release_pages
from yoda_cli.images.damage import damage_of
from yoda_cli.images.deep import BITS, PHOTOMETRIC, PNG_CHANNELS, PNG_SIGNATURE, SAMPLES, png_chunk
from yoda_cli.images.exif import orientation_of, size_as_stored
from yoda_cli.images.opening import opened
from yoda_cli.images.picture import GREY_MODES, Picture
from yoda_cli.images.reading import further_pictures, guarded, metadata_of

TOUCHED = 16 << 20  # bytes decoded, turned or compared at once
PNG_MODES, OTHER_MODES = ("1", "L", "P", "RGB"), ("L", "RGB")

GREY_OR_RGB = {1: 1, 2: 3}  # a TIFF's photometric interpretation: samples
PIXELS = (b"IDAT", b"acTL", b"fcTL", b"fdAT")

Bytes = NDArray[np.uint8]


def read_strips(source: Path, scratch: Scratch) -> Picture | None:
    """``read_picture`` as bytes, its pixels in ``scratch``; None for what is left to Pillow.

    Raises InputError and NotFoundError as it does, and OSError where the disk has no room.
    """
    import pyvips

    logging.getLogger("pyvips").addHandler(logging.NullHandler())  # else it speaks on stderr
    with opened(source) as (image, file):
        if not is_plain(image) or damage_of(image, file):
            return None
        kept = without_pixels(file) if image.format == "PNG" else image
        orientation, _ = guarded(lambda: orientation_of(kept), 1)
        metadata, dropped = metadata_of(kept, file, orientation)
        notices = (*further_pictures(image), *dropped)
        (width, height), is_grey = size_as_stored(image), image.mode in GREY_MODES
    turned = (width, height) if orientation >= 5 else (height, width)
    import torch

    room = scratch.zeros(*turned, 1 if is_grey else 3, dtype=torch.uint8)
    pixels = room.numpy()
    with opened(source):
        try:
            origin = pyvips.Source.new_from_file(os.fsencode(source))
            found = pyvips.Image.new_from_source(origin, "", access="sequential", fail_on="error")
            if (found.height, found.width, found.bands) != (height, width, pixels.shape[2]):
                return None
            if found.format != "uchar":
                return None
            decode(pyvips.Region.new(found), as_stored(pixels, orientation))
        except pyvips.Error:  # damaged, or not for it: Pillow will say
            return None
    rgb = room.permute(2, 0, 1)[None].expand(1, 3, -1, -1)
    return Picture(rgb, None, is_grey or has_no_colour(pixels), 8, metadata, notices)


def is_plain(image: Image.Image) -> bool:
    """Whether every decoder sees the same in it."""
    if image.has_transparency_data:
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        samples = GREY_OR_RGB.get(tags.get(PHOTOMETRIC, -1))
        return (
            image.mode in OTHER_MODES
            and samples == tags.get(SAMPLES, 1)
            and set(tags.get(BITS, (1,))) == {8}
        )
    if image.format == "PNG":
        return image.mode in PNG_MODES
    return image.format in ("JPEG", "MPO") and image.mode in OTHER_MODES


def without_pixels(file: BinaryIO) -> Image.Image:
    """A PNG of one pixel with all that stands beside the pixels of ``file``."""
    file.seek(len(PNG_SIGNATURE))
    parts, row = [PNG_SIGNATURE], b""
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in PIXELS:
            file.seek(length + 4, io.SEEK_CUR)
            parts += [png_chunk(b"IDAT", zlib.compress(row))] if row else []
            row = b""
            continue
        body = file.read(length + 4)
        if name == b"IHDR":
            row = bytes(1 + -(-body[8] * PNG_CHANNELS.get(body[9], 1) // 8))
            parts.append(png_chunk(name, struct.pack(">II", 1, 1) + body[8:12] + b"\0"))
        else:
            parts.append(head + body)
    small = Image.open(io.BytesIO(b"".join(parts)), formats=["PNG"])
    small.load()  # what follows the pixels is read then
    return small


def as_stored(upright: Bytes, orientation: int) -> Bytes:
    """The view of an upright picture (H, W, C) that has its rows as the file has them."""
    if orientation in (3, 4, 7, 8):
        upright = upright[::-1]
    if orientation in (2, 3, 6, 7):
        upright = upright[:, ::-1]
    return upright.swapaxes(0, 1) if orientation >= 5 else upright


def decode(region: Any, target: Bytes) -> None:
    """All rows of a picture into ``target``; little of it is touched at once, turned or not."""
    height, width, bands = target.shape
    rows = max(TOUCHED // (width * bands), 1)
    columns = max(TOUCHED // (height * bands), 1)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        strip = np.frombuffer(region.fetch(0, top, width, count), np.uint8)
        strip = strip.reshape(count, width, bands)
        for left in range(0, width, columns):
            part = slice(left, left + columns)
            target[top : top + count, part] = strip[:, part]
            release_pages()


def has_no_colour(pixels: Bytes) -> bool:
    """Whether all channels of (H, W, C) are the same."""
    height, width, bands = pixels.shape
    rows = max(TOUCHED // (width * bands), 1)
    for top in range(0, height, rows):
        part = pixels[top : top + rows]
        if not (part == part[..., :1]).all():
            return False
        release_pages()
    return True
