"""From a picture to a file: format, depth, metadata, provenance; written beside, then renamed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from yoda_cli.errors import OutputError
from yoda_cli.images.picture import Metadata, Picture
from yoda_cli.images.reading import DEEP, MARK, Pixels

SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}
FORMATS = {".jpeg": "JPEG", ".tiff": "TIFF", **{v: k for k, v in SUFFIX.items()}}
SIDE_LIMIT = {"WEBP": 16_383, "JPEG": 65_535}
EXIF_SOFTWARE = 0x0131
PNG_HEADER = 8 + 25  # signature and IHDR


def format_of(path: Path) -> str:
    """The file format a name asks for."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        known = " ".join(sorted(FORMATS))
        raise OutputError(f"{path}: no known picture format; give a name ending in one of {known}")
    return kind


def output_format_for(picture: Picture, suffix: str) -> tuple[str, str]:
    """(format, suffix): the input's own where it can hold the picture, else PNG."""
    kind = picture.metadata.kind
    holds_alpha = kind in ("PNG", "WEBP", "TIFF") or picture.alpha is None
    holds_depth = kind in DEEP or picture.bits == 8
    if kind in SUFFIX and holds_alpha and holds_depth:
        return kind, suffix if FORMATS.get(suffix.lower()) == kind else SUFFIX[kind]
    return "PNG", ".png"


def check_format_size(kind: str, width: int, height: int) -> None:
    """Refuse a size that the format cannot hold, before any work is done for it."""
    limit = SIDE_LIMIT.get(kind)
    if limit is not None and max(width, height) > limit:
        raise OutputError(f"{kind} holds at most {limit} pixels a side, not {width}×{height}")


def encode_picture(
    picture: Picture, *, kind: str, quality: int = 95, provenance: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a file of format ``kind``; values are rounded half up to the depth kept."""
    deep = picture.bits == 16 and kind in DEEP
    pixels = _pixels(picture, 65535 if deep else 255, keep_alpha=kind not in ("JPEG", "BMP"))
    mark = json.dumps(dict(provenance or {}), sort_keys=True)
    if deep:
        return _encode_deep(pixels, kind, picture.metadata, mark if provenance else "")
    out = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(out, kind, **_save_options(kind, quality, picture.metadata, mark, provenance))
    return out.getvalue()


def _pixels(picture: Picture, top: int, *, keep_alpha: bool) -> Pixels:
    rgb, alpha = picture.rgb, picture.alpha
    if alpha is not None and not keep_alpha:
        rgb, alpha = rgb * alpha + (1 - alpha), None  # onto white
    planes = [rgb.mean(1, keepdim=True) if picture.is_grey else rgb]
    planes += [alpha] if alpha is not None else []
    values = torch.cat(planes, dim=1)[0].clamp(0, 1).permute(1, 2, 0).numpy()
    return np.floor(values.astype(np.float64) * top + 0.5).astype(
        np.uint8 if top == 255 else np.uint16
    )


def _save_options(
    kind: str, quality: int, metadata: Metadata, mark: str, provenance: Mapping[str, str] | None
) -> dict[str, Any]:
    exif = Image.Exif()
    if metadata.exif:
        exif.load(metadata.exif)
    if provenance:
        exif[EXIF_SOFTWARE] = f"{MARK} {mark}"
    options: dict[str, Any] = {}
    if metadata.icc:
        options["icc_profile"] = metadata.icc
    if metadata.dpi and kind != "WEBP":
        options["dpi"] = metadata.dpi
    if kind != "BMP" and len(exif):
        options["exif"] = exif
    if metadata.xmp and kind in ("JPEG", "WEBP"):
        options["xmp"] = metadata.xmp
    if kind == "JPEG":
        options |= {"quality": quality, "subsampling": 0, "optimize": True}
    elif kind == "WEBP":
        options |= {"quality": quality, "method": 4, "exact": True}
    elif kind == "TIFF":
        options["compression"] = "tiff_deflate"
    elif kind == "PNG":
        info = PngImagePlugin.PngInfo()
        for key, value in {**metadata.text, **({MARK: mark} if provenance else {})}.items():
            info.add_itxt(key, value)
        options["pnginfo"] = info
    return options


def _encode_deep(pixels: Pixels, kind: str, metadata: Metadata, mark: str) -> bytes:
    """16-bit PNG or TIFF through OpenCV; PNG text and profile are spliced in as chunks."""
    import cv2

    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    channels = pixels.shape[-1]
    data = cv2.cvtColor(pixels, order[channels]) if channels in order else pixels
    done, packed = cv2.imencode(SUFFIX[kind], data)
    if not done:
        raise OutputError(
            f"could not encode a 16-bit {kind} of {pixels.shape[1]}×{pixels.shape[0]}"
        )
    encoded = packed.tobytes()
    return _with_chunks(encoded, metadata, mark) if kind == "PNG" else encoded


def _with_chunks(encoded: bytes, metadata: Metadata, mark: str) -> bytes:
    """A PNG with the ancillary chunks that Pillow writes for the same metadata."""
    small = io.BytesIO()
    options = _save_options("PNG", 95, metadata, mark, {MARK: mark} if mark else None)
    Image.new("L", (1, 1)).save(small, "PNG", **options)
    extra = b"".join(
        chunk
        for name, chunk in _chunks(small.getvalue())
        if name not in (b"IHDR", b"IDAT", b"IEND")
    )
    return encoded[:PNG_HEADER] + extra + encoded[PNG_HEADER:]


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        end = position + 12 + length
        yield png[position + 4 : position + 8], png[position:end]
        position = end


def write_picture(
    path: Path,
    picture: Picture,
    *,
    kind: str,
    quality: int = 95,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Encode and write; under the final name there is always the whole file or none."""
    data = encode_picture(picture, kind=kind, quality=quality, provenance=provenance)
    partial = path.with_name(f".yoda-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def made_by_yoda(path: Path) -> bool:
    """Whether the file's own metadata says that yoda made it."""
    try:
        with Image.open(path) as image:
            software = str(image.getexif().get(EXIF_SOFTWARE, ""))
            return MARK in image.info or software.startswith(f"{MARK} ")
    except Exception:  # whatever it is, yoda did not make it
        return False
