"""Opening picture files of anyone's making: limits, silence, and one kind of error.

Every size is checked from the header, before memory is taken for pixels.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import re
import stat
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from PIL import Image, UnidentifiedImageError

from yoda_cli.errors import InputError, NotFoundError
from yoda_cli.files import shown

MAX_PIXELS = 1 << 28  # 268 million; of an animation, all frames together
MAX_SIDE = 1_000_000
MAX_STREAM_BYTES = 1 << 31  # of what comes without a file
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "HEIF")
KINDS = {"MPO": "JPEG", "DIB": "BMP"}  # Pillow's name: ours

# How libtiff ("Function: message"), libpng, dav1d and OpenCV begin a line on standard error.
NOISE = re.compile(
    rb"^(?:(?!yoda)\w+: |libpng |Error parsing |Unknown OBU |Overrun in OBU |"
    rb"\[ ?(?:WARN|ERROR):).*\n*",
    re.MULTILINE,
)

HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

Source = Path | bytes | BinaryIO

# Warning filters and Pillow's pixel limit belong to the whole process: one decoder at a time.
_decoding = threading.RLock()

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors go to stderr


@contextlib.contextmanager
def opened(source: Source) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """A picture whose header was read and whose size is allowed, and its seekable file.

    Whatever a decoder raises inside becomes one InputError naming the source.
    """
    with _file(source) as (file, name), _quiet_decoders():
        try:
            with _identified(file, name) as image:
                check_size(image.size, 1, name)
                yield image, file
        except InputError:
            raise
        except Image.DecompressionBombError as error:
            found = re.search(r"\((\d+) pixels\)", str(error))
            raise InputError(_too_large(name, f"{int(found[1]):,}" if found else "more")) from error
        except MemoryError as error:
            raise InputError(f"{name} needs more memory than there is") from error
        except Exception as error:  # struct.error, SyntaxError, zlib.error, cv2.error, …
            reason = " ".join(str(error).split("<_io", 1)[0].split()) or type(error).__name__
            raise InputError(f"{name} cannot be decoded: {reason}") from error


def name_of(source: Source) -> str:
    """How messages call it."""
    return shown(source) if isinstance(source, Path) else "the input stream"


def check_size(size: tuple[int, int], frames: int, name: str) -> None:
    """Refuse absurd headers and decompression bombs."""
    width, height = size
    times = f" × {frames} frames" if frames > 1 else ""
    if width < 1 or height < 1:
        raise InputError(f"{name} has no pixels: {width}×{height}")
    if max(size) > MAX_SIDE or width * height * frames > MAX_PIXELS:
        raise InputError(_too_large(name, f"{width}×{height}{times}"))


def _too_large(name: str, size: str) -> str:
    limit = f"{MAX_PIXELS:,} pixels and {MAX_SIDE:,} a side"
    return f"{name} is too large: {size} pixels; the limit is {limit}"


@contextlib.contextmanager
def _file(source: Source) -> Iterator[tuple[BinaryIO, str]]:
    name = name_of(source)
    if not isinstance(source, Path):
        data = source if isinstance(source, bytes) else source.read(MAX_STREAM_BYTES + 1)
        if len(data) > MAX_STREAM_BYTES:
            raise InputError(f"{name} is longer than {MAX_STREAM_BYTES:,} bytes")
        _refuse_empty(len(data), name)
        yield io.BytesIO(data), name
        return
    try:
        status = source.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name} is a folder, not a picture")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name} is no regular file; give - to read a pipe")
        _refuse_empty(status.st_size, name)
        file = source.open("rb")
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise NotFoundError(f"no such file: {name}") from error
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from error
    with file:
        yield file, name


def _refuse_empty(length: int, name: str) -> None:
    if length == 0:
        raise InputError(f"{name} is empty (0 bytes)")


def _identified(file: BinaryIO, name: str) -> Image.Image:
    head = file.read(12)
    file.seek(0)
    is_heif = head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS
    if is_heif and not _can_read_heif():
        raise InputError(f"{name} is HEIC; install pillow-heif to read it, or convert it to JPEG")
    Image.init()
    formats = [kind for kind in READABLE if kind in Image.OPEN]
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is damaged or not a picture of a known format "
            "(PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, HEIC)"
        ) from error


def _can_read_heif() -> bool:
    if "HEIF" not in Image.OPEN:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError:
            return False
    return True


@contextlib.contextmanager
def _quiet_decoders() -> Iterator[None]:
    """No warning lines; our size limit in place of Pillow's."""
    with _decoding, _without_noise(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns there, and refuses at twice that
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Standard error is held back and passed on less the lines that decoders wrote there.

    The C libraries write to the file descriptor itself; what other threads say meanwhile is only
    late.
    """
    with contextlib.ExitStack() as held_open:
        try:
            held = held_open.enter_context(_memory_file())
            kept = os.dup(2)
        except OSError:  # no standard error, or no place to hold it
            yield
            return
        held_open.callback(os.close, kept)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            held.seek(0)
            with contextlib.suppress(OSError):
                os.write(kept, NOISE.sub(b"", held.read()))


def _memory_file() -> IO[bytes]:
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("stderr"), "r+b")
    return tempfile.TemporaryFile()
