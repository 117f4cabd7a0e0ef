"""From a file to pictures: upright, at full depth, with all that the file carries beside."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

import numpy as np
from PIL import Image

from yoda_cli.errors import InputError, NotFoundError, is_out_of_memory
from yoda_cli.images.damage import damage_of
from yoda_cli.images.deep import bits_of, is_grey_alpha, read_deep
from yoda_cli.images.exif import ORIENTATION, exif_of, orientation_of, resolution_of, with_numbers
from yoda_cli.images.opening import ACCEPT, KINDS, Source, name_of, opened, read_stream
from yoda_cli.images.picture import ANIMATED, Metadata, Picture, as_tensors
from yoda_cli.images.pixels import CONVERTED, Raw, Stored, read_8
from yoda_cli.images.provenance import (
    BMP_BYTES,
    MARK,
    XMP_TEXT,
    plain_xmp,
    provenance_behind,
    provenance_in,
)
from yoda_cli.images.resize import as_floats

MAX_DPI = 65_535  # what JPEG can say
RIFF_HEADER = 12
NOT_TEXT = (MARK, XMP_TEXT, "Raw profile type exif")

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def read_picture(
    source: Source, *, as_bytes: bool = False, accept_damaged: bool = False, plain: bool = False
) -> Picture:
    """Decode a file, its bytes or a binary stream; of an animation the first frame.

    ``plain`` gives NumPy's arrays in place of tensors, and needs no torch.
    ``as_bytes`` leaves the colours of a picture of 8 bits a channel as uint8. ``accept_damaged``
    reads what can be read of a damaged file, and a notice says so.
    Raises NotFoundError for a missing file, InputError for anything that is not a sound picture.
    """
    if not isinstance(source, (bytes, Path)):
        source = read_stream(source)
    try:
        with opened(source) as (image, file):
            refuse_damage(image, file, name_of(source))
            picture = _still(image, file, as_bytes=as_bytes)
            return picture if plain else as_tensors(picture)
    except InputError as error:
        if not accept_damaged:
            raise
        notice = damage_notice(error)
    with opened(source, accept_damaged=True) as (image, file):
        picture = _still(image, file, as_bytes=as_bytes, fill_gaps=True)
    picture = replace(picture, notices=(notice, *picture.notices))
    return picture if plain else as_tensors(picture)


def damage_notice(refused: InputError) -> str:
    """What is said of a damaged file that is read all the same."""
    what = str(refused).removesuffix(ACCEPT)
    return f"damaged: {what.partition(' is damaged: ')[2] or what}"


def refuse_damage(image: Image.Image, file: BinaryIO, name: str) -> None:
    """Raise InputError where pixels are missing that a decoder would fill in silence."""
    if damage := damage_of(image, file):
        raise InputError(f"{name} is damaged: {damage}{ACCEPT}")


def made_by_yoda(source: Source) -> bool:
    """Whether the file's own metadata says that yoda made it; False for what is no picture."""
    return read_provenance(source) is not None


def read_provenance(source: Source) -> dict[str, str] | None:
    """What the file says about how yoda made it; None if it says nothing or is no picture."""
    try:
        with opened(source) as (image, file):
            if image.format == "BMP":
                file.seek(0, io.SEEK_END)
                file.seek(max(0, file.tell() - BMP_BYTES))
                return provenance_behind(file.read())
            return provenance_in(image)
    except (InputError, NotFoundError):
        return None


def _still(
    header: Image.Image, file: BinaryIO, *, as_bytes: bool = False, fill_gaps: bool = False
) -> Picture:
    image, file, orientation = _loaded_as_stored(header, file)
    metadata, dropped = metadata_of(image, file, orientation)
    bits = bits_of(image, file)
    values = read_deep(image, file, fill_gaps=fill_gaps) if bits > 8 else None
    if values is not None:
        raw = Raw(values, 16)
    else:
        raw = read_8(image)
        if bits > 8:
            dropped += (f"{bits} bits a channel were read as 8",)
    notices = (*further_pictures(image), *dropped)
    picture = plain_picture_of(raw, orientation, metadata, notices)
    if not as_bytes:
        picture = replace(picture, rgb=as_floats(picture.rgb))
    return picture


def _loaded_as_stored(image: Image.Image, file: BinaryIO) -> tuple[Image.Image, BinaryIO, int]:
    """The decoded picture, its file and the orientation still to be applied.

    Pillow and OpenCV turn TIFFs while decoding, each in its own way, so they see one that says 1.
    """
    if image.format != "TIFF":
        image.load()
        orientation, _ = guarded(lambda: orientation_of(image), 1)
        return image, file, orientation
    orientation, _ = guarded(lambda: orientation_of(image), 1)
    if image.tag_v2.get(ORIENTATION, 1) != 1:  # type: ignore[attr-defined]
        file.seek(0)
        file = io.BytesIO(with_numbers(file.read(), {ORIENTATION: 1}))
        image = Image.open(file, formats=["TIFF"])
    image.getexif()[ORIENTATION] = 1  # whatever its XMP says
    image.load()
    return image, file, orientation


def plain_picture_of(
    raw: Raw, orientation: int, metadata: Metadata, notices: tuple[str, ...]
) -> Picture:
    """The same of NumPy's arrays."""
    upright = _upright(raw.values, orientation).transpose(2, 0, 1)[None]
    values = cast("Stored", np.ascontiguousarray(upright))  # (1, C, H, W)
    channels = values.shape[1]
    alpha = as_floats(cast("Tensor", values[:, -1:].copy())) if channels in (2, 4) else None
    if channels < 3:
        rgb, is_grey = as_colours(values[:, :1]), True
    else:
        rgb = values[:, :3].copy() if channels > 3 else values
        is_grey = np.array_equal(rgb[:, 0], rgb[:, 1]) and np.array_equal(rgb[:, 1], rgb[:, 2])
    return Picture(cast("Tensor", rgb), alpha, is_grey, raw.bits, metadata, raw.notices + notices)


def as_colours(grey: Stored) -> Stored:
    """Three channels (1, 3, H, W) of one; bytes, which are only read, in the same memory."""
    if grey.dtype == np.uint8:
        strides = (grey.strides[0], 0, *grey.strides[2:])
        shape = (1, 3, *grey.shape[2:])
        return cast("Stored", np.lib.stride_tricks.as_strided(grey, shape, strides))
    return grey.repeat(3, 1)


def _upright(values: Stored, orientation: int) -> Stored:
    """(H, W, C) turned and flipped as EXIF orientation 1 … 8 says."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def further_pictures(image: Image.Image) -> tuple[str, ...]:
    """A notice where only the first of several is read."""
    if not getattr(image, "is_animated", False):
        return ()
    if image.format == "MPO":
        return ("further pictures inside the JPEG (previews, gain maps) are dropped",)
    if image.format in ANIMATED:
        return ("animated: only the first frame is used",)
    return ("several pages: only the first is used",)


def metadata_of(
    image: Image.Image, file: BinaryIO, orientation: int
) -> tuple[Metadata, tuple[str, ...]]:
    """What stands beside the pixels, and notices about what of it is damaged."""
    info = image.info
    is_grey_16 = is_grey_alpha(image, file)
    exif, notices = guarded(lambda: exif_of(image), b"", "damaged EXIF was dropped")
    dpi, _ = guarded(lambda: _dpi(image), None)
    if dpi is not None and orientation >= 5:
        dpi = (dpi[1], dpi[0])
    icc = info.get("icc_profile")
    xmp = info.get("xmp", b"")
    text = getattr(image, "text", {})
    comment = info.get("comment", b"")
    metadata = Metadata(
        kind=KINDS.get(str(image.format), str(image.format)),
        mode="LA" if is_grey_16 else image.mode,
        exif=exif,
        icc=icc if isinstance(icc, bytes) and image.mode not in CONVERTED else b"",
        dpi=dpi,
        xmp=plain_xmp(xmp.encode() if isinstance(xmp, str) else bytes(xmp)),
        text={str(k): v for k, v in text.items() if isinstance(v, str) and k not in NOT_TEXT},
        comment=comment if isinstance(comment, bytes) and provenance_in(image) is None else b"",
        is_lossless=image.format == "WEBP" and _is_lossless_webp(file),
    )
    return metadata, notices


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    found = image.info.get("dpi") or resolution_of(image)
    if not found:
        return None
    x, y = float(found[0]), float(found[1])
    is_sound = all(math.isfinite(v) and 0 < v <= MAX_DPI for v in (x, y))
    return (x, y) if is_sound else None


def _is_lossless_webp(file: BinaryIO) -> bool:
    file.seek(RIFF_HEADER)
    while len(header := file.read(8)) == 8:
        name, length = header[:4], int.from_bytes(header[4:], "little")
        if name in (b"VP8 ", b"VP8L", b"ANMF"):
            return name == b"VP8L"
        file.seek(length + length % 2, io.SEEK_CUR)
    return False


def guarded(
    make: Callable[[], T], otherwise: T, notice: str | None = None
) -> tuple[T, tuple[str, ...]]:
    """What ``make`` returns; damaged metadata must not cost the picture."""
    try:
        return make(), ()
    except Exception as error:  # whatever Pillow meets in a damaged block
        if is_out_of_memory(error):
            raise
        return otherwise, (notice,) if notice else ()
