"""Writing 16-bit PNG, which Pillow does only for grey: pixels by OpenCV, the rest by Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from yoda_cli.errors import OutputError
from yoda_cli.images.deep import PNG_SIGNATURE, png_chunk, png_chunks

PIXEL_CHUNKS = (b"IHDR", b"IDAT", b"IEND")
COMPRESSION = 6  # zlib's own default


def encode_png_16(pixels: npt.NDArray[np.uint16], options: dict[str, Any]) -> bytes:
    """``pixels`` (H, W, C): grey, RGB or RGBA; ``options`` as Pillow takes them.

    Grey with alpha, which OpenCV does not write, becomes RGBA.
    """
    import cv2  # dozens of milliseconds, for a rare kind of file

    if pixels.shape[2] == 2:
        pixels = pixels[:, :, [0, 0, 0, 1]]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
    settings = [cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION,
                cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED]  # fmt: skip
    made, packed = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, order]), settings)
    if not made:
        raise OutputError("OpenCV could not write a 16-bit PNG")
    chunks = [(name, body) for name, body in png_chunks(packed.tobytes()) if name in PIXEL_CHUNKS]
    written = [png_chunk(name, body) for name, body in chunks]
    return b"".join([PNG_SIGNATURE, written[0], _ancillary(options), *written[1:]])


def _ancillary(options: dict[str, Any]) -> bytes:
    """The chunks that Pillow writes for the same options."""
    small = io.BytesIO()
    Image.new("L", (1, 1)).save(small, "PNG", **options)
    return b"".join(
        png_chunk(name, body)
        for name, body in png_chunks(small.getvalue())
        if name not in PIXEL_CHUNKS
    )
