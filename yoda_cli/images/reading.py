"""From a file to a picture; anything that is not one is refused with what is wrong."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from yoda_cli.errors import InputError, NotFoundError
from yoda_cli.images.picture import Metadata, Picture

MAX_PIXELS = 1 << 28  # larger headers are refused before any memory is taken
MAX_SIDE = 1_000_000
DEEP = ("PNG", "TIFF")  # formats that hold 16 bits
MARK = "yoda"  # the key of what yoda writes about its own work
EXIF_ORIENTATION = 0x0112
# Tags that say how a TIFF's pixels are stored, and profiles kept elsewhere: not about the picture.
TIFF_LAYOUT = {*range(254, 270), *range(273, 280), 282, 283, 284, 292, 296, *range(317, 348)}
TIFF_LAYOUT |= {512, 529, 530, 531, 532, 700, 34675}

Pixels = npt.NDArray[Any]


def read_picture(path: Path) -> Picture:
    """Decode a picture file; refuses, with what is wrong, anything that is not one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {path}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes)")
    try:
        with _quietly(), Image.open(io.BytesIO(data)) as image:
            _check_size(image.size, path)
            return _decode(image, data)
    except InputError:
        raise
    except Exception as error:  # decoders raise anything: struct.error, SyntaxError, zlib.error …
        reason = str(error).split("<_io", 1)[0].strip() or type(error).__name__
        raise InputError(f"{path} is not a readable picture: {reason}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_size(size: tuple[int, int], path: Path) -> None:
    width, height = size
    if width * height > MAX_PIXELS or max(size) > MAX_SIDE:
        raise InputError(
            f"{path} is {width}×{height}; at most {MAX_PIXELS >> 20} Mi pixels and "
            f"{MAX_SIDE} a side can be read"
        )


def _decode(image: Image.Image, data: bytes) -> Picture:
    notices: list[str] = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notices.append(f"{frames} frames; only the first is used")
    deep = _decode_deep(image, data) if image.format in DEEP else None
    if deep is not None:
        pixels, bits = deep, 16
    else:
        if image.mode == "CMYK":
            notices.append("CMYK was converted to RGB")
        pixels, bits = np.asarray(_to_8_bit(image)), 8
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    values = torch.from_numpy(pixels.astype(np.float32) / (2**bits - 1))
    values = values.permute(2, 0, 1).unsqueeze(0)  # (1, C, H, W)
    channels = values.shape[1]
    is_grey = channels < 3
    alpha = values[:, -1:].contiguous() if channels in (2, 4) else None
    rgb = (values[:, :1].expand(-1, 3, -1, -1) if is_grey else values[:, :3]).contiguous()
    return Picture(rgb, alpha, is_grey, bits, _metadata(image), tuple(notices))


def _to_8_bit(image: Image.Image) -> Image.Image:
    """L, LA, RGB or RGBA, upright."""
    image = ImageOps.exif_transpose(image)
    has_alpha = image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La", "I", "I;16", "F")
    if image.mode in ("I", "F", "I;16"):
        values = np.asarray(image, dtype=np.float64)
        top = 255.0 if values.max(initial=0) <= 255 else 65535.0
        return Image.fromarray((values.clip(0, top) / top * 255).round().astype(np.uint8))
    return image.convert(("LA" if has_alpha else "L") if grey else "RGBA" if has_alpha else "RGB")


def _decode_deep(image: Image.Image, data: bytes) -> Pixels | None:
    """16-bit pixels (H, W[, C]) in RGB order, which Pillow would cut to 8 bits; None if 8-bit."""
    import cv2

    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    if not _may_be_deep(image):
        return None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None or pixels.dtype != np.uint16:
        return None
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        code = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        pixels = cv2.cvtColor(pixels, code)
    image.load()  # a truncated file is told by Pillow, not passed by OpenCV
    return _upright(pixels, image.getexif().get(EXIF_ORIENTATION, 1))


def _may_be_deep(image: Image.Image) -> bool:
    """Whether the file's own pixel layout, which Pillow names before it loads, has 16 bits."""
    tiles = getattr(image, "tile", [])
    return image.mode.startswith("I;16") or (bool(tiles) and ";16" in str(tiles[0][3]))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation 1 … 8 to (H, W[, C])."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _metadata(image: Image.Image) -> Metadata:
    exif = image.getexif()
    for tag in [tag for tag in exif if tag == EXIF_ORIENTATION or tag in TIFF_LAYOUT]:
        del exif[tag]
    dpi = image.info.get("dpi")
    xmp = image.info.get("xmp", b"")
    text = {k: str(v) for k, v in getattr(image, "text", {}).items() if k != MARK}
    return Metadata(
        str(image.format),
        exif.tobytes() if len(exif) else b"",
        image.info.get("icc_profile") or b"",
        (float(dpi[0]), float(dpi[1])) if dpi else None,
        xmp.encode() if isinstance(xmp, str) else bytes(xmp),
        text,
    )
