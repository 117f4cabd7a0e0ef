"""From a picture to a file: format, depth, metadata, provenance.

Values are clamped to [0, 1] and rounded half up to 8 or 16 bits.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from yoda_cli.arrays import as_array
from yoda_cli.devices.memory import can_be_had
from yoda_cli.errors import DeviceError, OutputError, YodaError, is_out_of_memory
from yoda_cli.files import write_atomically
from yoda_cli.images.animation import save_frames
from yoda_cli.images.exif import with_resolution, with_size
from yoda_cli.images.formats import FORMATS, JPEG_XMP, check_format_size, holdable
from yoda_cli.images.frames import AnimationHeader
from yoda_cli.images.picture import ANIMATED, Animation, Metadata, Picture, stores_one_channel
from yoda_cli.images.png import encode_png_16
from yoda_cli.images.provenance import MARK, XMP_TEXT, as_json, behind_pixels, mark_xmp
from yoda_cli.images.tiff import encode_tiff

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[Any]

FINE = 95  # quality from which Pillow takes two bytes a pixel for the most that a JPEG takes
QUALITY = 95  # where nothing is asked for; chosen: what JPEG loses at it is not seen
BAND_PIXELS = 1 << 20  # turned into integers at once
PNG_LEVEL = 4  # of zlib: half the time of its default 6, photographs 1 to 3 % larger
#: Bytes that encoders take, and bytes a pixel, at the most: counted of an animated AVIF of 600×500,
#: whose encoder looks frames ahead.
ENCODER_ROOM, ENCODING_BYTES = 128 << 20, 80
#: What AVIF's encoder needs in any case; where it has less it ends the process.
AVIF_ROOM, AVIF_BYTES = 32 << 20, 40
LONG_TEXT = 1024  # characters of PNG text that is worth compressing
MARKED_IN_XMP = ("JPEG", "WEBP", "TIFF", "AVIF")


def write_picture(
    path: Path,
    picture: Picture,
    *,
    kind: str,
    quality: int | None = None,
    strip_metadata: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Encode and write; under the final name there is always the whole file or none."""
    data = encode_picture(
        picture,
        kind=kind,
        quality=quality,
        strip_metadata=strip_metadata,
        provenance=provenance,
    )
    write_atomically(path, data)


def encode_picture(
    picture: Picture,
    *,
    kind: str,
    quality: int | None = None,
    strip_metadata: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of a file of format ``kind``.

    ``quality`` 1 … 100 is that of JPEG, WebP and AVIF; None is 95, and lossless WebP where the
    source was. ``strip_metadata`` leaves only the colour profile, without which the colours would
    be others; ``provenance`` goes too. `losses` says beforehand what the format will not keep.
    """
    height, width = picture.rgb.shape[-2:]
    check_format_size(kind, width, height)
    is_deep = picture.bits == 16 and FORMATS[kind].has_16_bits
    metadata, mark = to_write(picture, kind, strip_metadata, provenance)
    pixels = _pixels(picture, kind, is_deep=is_deep)
    with _encoding(kind, width, height):
        if kind == "TIFF":
            return encode_tiff(pixels, metadata)
        options = _options(kind, metadata, quality, mark)
        if is_deep:
            return encode_png_16(pixels, options)
        out = _saved(_image(pixels), kind, options)
        if kind == "BMP" and mark:
            out.write(behind_pixels(mark))
        return out.getvalue()


def _saved(image: Image.Image, kind: str, options: Mapping[str, Any]) -> io.BytesIO:
    """A file in memory.

    Code tables made for a JPEG (``optimize``) want all of it in one buffer, whose size Pillow
    guesses, too small for noise: they are made where the file without them would fit.
    """
    is_fitted = options.get("optimize", False)
    out = io.BytesIO()
    image.save(out, kind, **{**options, "optimize": False} if is_fitted else options)
    guessed = image.width * image.height * (2 if options.get("quality", 0) >= FINE else 1)
    if is_fitted and out.tell() < guessed:
        out = io.BytesIO()
        image.save(out, kind, **options)
    return out


def encode_frames(
    animation: Animation,
    *,
    kind: str,
    quality: int | None = None,
    strip_metadata: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> bytes:
    """An animated PNG, WebP, GIF or AVIF at 8 bits, timing kept; metadata of the first frame."""
    frames = animation.frames
    header = AnimationHeader(
        animation.milliseconds,
        animation.plays,
        any(frame.alpha is not None for frame in frames),
        all(frame.is_grey for frame in frames),
    )
    out = io.BytesIO()
    write_frames(
        out, iter(frames), header, kind=kind, quality=quality, strip_metadata=strip_metadata,
        provenance=provenance,
    )  # fmt: skip
    return out.getvalue()


def write_frames(
    out: BinaryIO,
    frames: Iterator[Picture],
    header: AnimationHeader,
    *,
    kind: str,
    quality: int | None = None,
    strip_metadata: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """The same to a file, frame by frame: one or two of them are in memory at once."""
    if kind not in ANIMATED:
        raise OutputError(f"{kind} holds no animation; choose one of {', '.join(ANIMATED)}")
    first = next(frames)
    height, width = first.rgb.shape[-2:]
    check_format_size(kind, width, height)
    metadata, mark = to_write(first, kind, strip_metadata, provenance)
    options = _options(kind, metadata, quality, mark)
    is_narrow = kind == "PNG" and header.is_grey and stores_one_channel(first)
    one_kind = (
        _frame_pixels(frame, has_alpha=header.has_alpha, is_narrow=is_narrow)
        for frame in itertools.chain([first], frames)
    )
    with _encoding(kind, width, height):
        save_frames(
            out, one_kind, kind, milliseconds=header.milliseconds, plays=header.plays,
            options=options,
        )  # fmt: skip


def _frame_pixels(frame: Picture, *, has_alpha: bool, is_narrow: bool) -> Pixels:
    """Bytes with the channels that all frames of an animation have."""
    if has_alpha and frame.alpha is None:
        opaque = np.ones((1, 1, *frame.rgb.shape[-2:]), np.float32)
        frame = replace(frame, alpha=cast("Tensor", opaque))
    plain = replace(frame, is_grey=is_narrow, metadata=Metadata(mode="L" if is_narrow else "RGB"))
    pixels = _pixels(plain, "PNG", is_deep=False)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


@contextlib.contextmanager
def _encoding(kind: str, width: int, height: int) -> Iterator[None]:
    refusal = f"out of memory while encoding {width}×{height} as {kind}"
    if kind == "AVIF" and not can_be_had(AVIF_ROOM + AVIF_BYTES * width * height):
        raise DeviceError(refusal)
    try:
        yield
    except YodaError:
        raise
    except (OSError, ValueError, OverflowError, RuntimeError, MemoryError, struct.error) as error:
        # Pillow says of memory that ran out "broken data stream" (JPEG) and "encoding error 1".
        needed = ENCODER_ROOM + ENCODING_BYTES * width * height
        if is_out_of_memory(error) or not can_be_had(needed):
            raise DeviceError(refusal) from error
        raise OutputError(f"cannot encode {width}×{height} pixels as {kind}: {error}") from error


def _pixels(picture: Picture, kind: str, *, is_deep: bool) -> Pixels:
    """(H, W, C) integers: as many channels as the format and the source's kind of storage want."""
    height, width = picture.rgb.shape[-2:]
    rows = max(1, BAND_PIXELS // width)
    whole: Pixels | None = None
    for top in range(0, height, rows):  # what is between floats and integers stays small
        rgb, alpha = picture.rgb[..., top : top + rows, :], picture.alpha
        alpha = None if alpha is None else alpha[..., top : top + rows, :]
        band = _band(replace(picture, rgb=rgb, alpha=alpha), kind, is_deep=is_deep)
        if whole is None:
            whole = np.empty((height, *band.shape[1:]), dtype=band.dtype)
        whole[top : top + rows] = band
    assert whole is not None
    return whole


def _band(picture: Picture, kind: str, *, is_deep: bool) -> Pixels:
    rgb = as_array(picture.rgb)
    alpha = None if picture.alpha is None else as_array(picture.alpha)
    if alpha is not None and not FORMATS[kind].has_alpha:
        rgb, alpha = rgb * alpha + (1 - alpha), None  # onto white
    grey = rgb.mean(1, keepdims=True) if picture.is_grey else rgb
    is_narrow = stores_one_channel(picture) and not (
        kind == "TIFF" and is_deep and alpha is not None
    )
    is_spread = picture.is_grey and not is_narrow
    planes = [np.broadcast_to(grey, rgb.shape) if is_spread else grey]
    planes += [alpha] if alpha is not None else []
    top, dtype = (65535, np.uint16) if is_deep else (255, np.uint8)
    values = np.concatenate(planes, axis=1)[0].transpose(1, 2, 0).copy(order="C")  # (H, W, C)
    if not np.isfinite(values).all():
        raise ValueError("a picture holds values that are not finite")
    values = values.clip(0, 1, out=values)
    values *= top
    values += 0.5
    return cast(Pixels, np.floor(values, out=values).astype(dtype))


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def to_write(
    picture: Picture, kind: str, strip: bool, provenance: Mapping[str, str] | None
) -> tuple[Metadata, Mapping[str, str] | None]:
    """The metadata and the provenance that the file will say."""
    metadata = holdable(picture.metadata, kind)
    height, width = picture.rgb.shape[-2:]
    if strip:
        return Metadata(icc=metadata.icc, is_lossless=metadata.is_lossless), None
    exif = with_size(metadata.exif, width, height)
    if metadata.dpi and kind in ("WEBP", "AVIF"):
        exif = with_resolution(exif, metadata.dpi)
    xmp = metadata.xmp
    if provenance and kind in MARKED_IN_XMP:
        xmp = mark_xmp(xmp, provenance)
        if kind == "JPEG" and len(xmp) > JPEG_XMP:
            xmp = mark_xmp(b"", provenance)
    return replace(metadata, exif=exif, xmp=xmp), provenance


def _options(
    kind: str, metadata: Metadata, quality: int | None, mark: Mapping[str, str] | None
) -> dict[str, Any]:
    """What Pillow's encoder is told."""
    options: dict[str, Any] = {}
    for name, value in (("exif", metadata.exif), ("icc_profile", metadata.icc)):
        if value:
            options[name] = value
    if metadata.dpi and kind in ("PNG", "JPEG", "BMP"):
        options["dpi"] = metadata.dpi
    if metadata.xmp and kind in MARKED_IN_XMP:
        options["xmp"] = metadata.xmp
    if metadata.comment:
        options["comment"] = metadata.comment
    used = QUALITY if quality is None else quality
    if kind == "JPEG":
        options |= {"quality": used, "subsampling": "4:4:4", "optimize": True}
    elif kind == "WEBP":
        is_lossless = quality is None and metadata.is_lossless
        options |= {"quality": used, "lossless": is_lossless, "method": 4, "exact": True}
    elif kind == "AVIF":
        options |= {"quality": used, "subsampling": "4:4:4"}
    elif kind == "PNG":
        options |= {"pnginfo": _png_text(metadata, mark), "compress_level": PNG_LEVEL}
    elif kind == "GIF" and mark:
        options["comment"] = f"{MARK} {as_json(mark)}".encode()
    return options


def _png_text(metadata: Metadata, mark: Mapping[str, str] | None) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in metadata.text.items():
        info.add_text(key, value, zip=len(value) > LONG_TEXT)
    if metadata.xmp:
        info.add_itxt(XMP_TEXT, metadata.xmp.decode("utf-8", "replace"))
    if mark:
        info.add_text(MARK, as_json(mark))
    return info
