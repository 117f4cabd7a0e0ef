"""The pixels of a picture that Pillow has loaded, as arrays of 8 bits a channel. Knows no file."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from yoda_cli.images.picture import GREY_MODES

BAND_PIXELS = 1 << 22  # that are converted at once
CONVERTED = ("CMYK", "LAB")  # their profiles describe no RGB

Stored = npt.NDArray[np.float32] | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Raw:
    """Pixels as stored, (H, W, C), bytes or float32 in [0, 1], and what was lost on the way."""

    values: Stored
    bits: int = 8
    notices: tuple[str, ...] = ()


def read_8(image: Image.Image) -> Raw:
    """The pixels of a loaded picture at 8 bits a channel, and what was converted."""
    notices: tuple[str, ...] = ()
    if image.mode in CONVERTED:
        image, notice = _cmyk_to_rgb(image) if image.mode == "CMYK" else _lab_to_rgb(image)
        notices = (notice,)
    mode = "L" if image.mode in GREY_MODES else "RGB"
    if image.has_transparency_data:
        mode = "LA" if mode == "L" else "RGBA"
    return Raw(planar(image, mode).transpose(1, 2, 0), 8, notices)


def planar(image: Image.Image, mode: str) -> Stored:
    """The channels (C, H, W) of a loaded picture in another mode, converted band by band: Pillow
    takes four bytes for a pixel of colour, and NumPy as many as there are to get hold of them."""
    channels, (width, height) = len(mode), image.size
    made = np.empty((channels, height, width), np.uint8)
    rows = max(BAND_PIXELS // width, 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = np.asarray(image.crop((0, top, width, bottom)).convert(mode))
        made[:, top:bottom] = band.reshape(bottom - top, width, channels).transpose(2, 0, 1)
    return made


def _cmyk_to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """sRGB by the file's own profile where it has one that works."""
    profile = image.info.get("icc_profile")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image,
                source,
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            if converted is not None:
                return converted, "CMYK was converted to sRGB by the picture's colour profile"
    return image.convert("RGB"), "CMYK without a colour profile was converted to RGB"


def _lab_to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    return image.convert("RGB"), "CIELab was converted to sRGB"
