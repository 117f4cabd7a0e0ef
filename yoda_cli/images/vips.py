"""Very large pictures written row by row by libvips, through pyvips."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yoda_cli.config import WriteOptions
from yoda_cli.devices.memory import can_be_had, release_pages
from yoda_cli.errors import DeviceError, OutputError, is_out_of_memory
from yoda_cli.files import Check, shown, whole_file
from yoda_cli.images.picture import Picture
from yoda_cli.images.writing import QUALITY, to_write

if TYPE_CHECKING:
    from torch import Tensor

VIPS_ROOM = 32 << 20  # bytes of the rows that are at work, and threads
SYSTEM_ERROR = re.compile(r"^(?:unix|system) error: (.+)$", re.MULTILINE)


def to_bytes(pixels: Tensor, *, grey: bool) -> Tensor:
    """(3, h, w) as (h, w, 3), or (h, w, 1) where all are the same."""
    values = pixels.mean(0, keepdim=True) if grey else pixels
    return (values.clamp(0, 1) * 255 + 0.5).floor_().byte().permute(1, 2, 0)


def encode(
    made: Tensor, picture: Picture, target: Path, kind: str, mark: dict[str, str],
    writing: WriteOptions, check: Check,
) -> None:  # fmt: skip
    """Bytes (H, W, C) as a file of the format ``kind``, under its final name when it is whole.

    ``check`` judges what stands there.
    """
    import pyvips

    height, width, channels = made.shape
    large = replace(picture, rgb=picture.rgb.new_zeros(1, 1, 1, 1).expand(1, 3, height, width))
    metadata, mark_left = to_write(large, kind, writing.strip_metadata, mark)
    pixels = made.numpy()
    image: Any = pyvips.Image.new_from_memory(pixels.data, width, height, channels, "uchar")
    image = image.copy(interpretation="b-w" if picture.is_grey else "srgb")
    if metadata.dpi:
        x, y = (value / 25.4 for value in metadata.dpi)
        image = image.copy(xres=x, yres=y)
    blobs = {"exif-data": metadata.exif, "icc-profile-data": metadata.icc, "xmp-data": metadata.xmp}
    for name, data in blobs.items():
        if data:
            image.set_type(pyvips.GValue.blob_type, name, data)
    texts = dict(metadata.text)
    if mark_left and kind == "PNG":
        import json

        texts["yoda"] = json.dumps(mark_left)
    for number, (name, text) in enumerate(texts.items()):
        image.set_type(pyvips.GValue.gstr_type, f"png-comment-{number}-{name}", text)
    image.set_progress(True)
    image.signal_connect("eval", lambda *_: release_pages())
    quality = writing.quality or QUALITY
    try:
        with whole_file(target, check) as partial:
            if kind == "PNG":
                image.pngsave(os.fsencode(partial))
            elif kind == "JPEG":
                image.jpegsave(os.fsencode(partial), Q=quality, subsample_mode="off")
            else:
                image.tiffsave(os.fsencode(partial), bigtiff=True, compression="deflate", tile=True)
    except pyvips.Error as error:
        if is_out_of_memory(error) or not can_be_had(VIPS_ROOM):
            raise DeviceError(f"out of memory while writing {shown(target)}") from error
        found = SYSTEM_ERROR.search(error.detail)
        reason = found[1] if found else " ".join(f"{error.message}: {error.detail}".split())
        raise OutputError(f"cannot write {shown(target)}: {reason}") from error
