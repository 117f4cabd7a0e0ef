"""Opening picture files of anyone's making: limits, silence, and one kind of error.

Every size is checked from the header, before memory is taken for pixels.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import logging
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from yoda_cli.errors import DeviceError, InputError, NotFoundError, YodaError, is_out_of_memory
from yoda_cli.files import shown
from yoda_cli.images.scarcity import lacks_memory

#: Chosen beyond any camera's and below what takes a machine down: 268 million pixels, of an
#: animation all frames together; a side; bytes of what comes without a file.
MAX_PIXELS, MAX_SIDE, MAX_STREAM_BYTES = 1 << 28, 1_000_000, 1 << 31
STREAM_HEAD, STREAM_PART = 1 << 12, 1 << 20  # bytes read of a stream at first, and then at once
LIBRARIES = ("webp", "avif")  # modules of Pillow apart: it does not say why one was not loaded
PLUGINS = ("Png", "Jpeg", "WebP", "Tiff", "Bmp", "Gif", "Avif")  # Pillow's modules for them
NO_PICTURE = (
    "damaged or not a picture of a known format (PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, HEIC)"
)
ACCEPT = "; --accept-damaged reads what is there"
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "HEIF")
KINDS = {"MPO": "JPEG", "DIB": "BMP"}  # Pillow's name: ours


HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

Source = Path | bytes | BinaryIO

# Warning filters and Pillow's pixel limit belong to the whole process: one decoder at a time.
_decoding = threading.RLock()

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors go to stderr


@contextlib.contextmanager
def opened(
    source: Source, *, accept_damaged: bool = False
) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """A picture whose header was read and whose size is allowed, and its seekable file.

    Whatever a decoder raises inside becomes one InputError naming the source, memory that ran out
    a DeviceError. ``accept_damaged`` fills what a truncated file lacks.
    """
    with (
        file_of(source) as (file, name),
        decoding(file, name, accept_damaged=accept_damaged),
        identified(file, name) as image,
    ):
        yield image, file


@contextlib.contextmanager
def decoding(file: BinaryIO, name: str, *, accept_damaged: bool = False) -> Iterator[None]:
    """No lines of decoders, our limits, and one kind of error, for as long as it is open."""
    with _quiet_decoders(accept_damaged=accept_damaged):
        try:
            yield
        except YodaError:
            raise
        except Image.DecompressionBombError as error:
            found = re.search(r"\((\d+) pixels\)", str(error))
            raise InputError(_too_large(name, f"{int(found[1]):,}" if found else "more")) from error
        except Exception as error:  # struct.error, SyntaxError, zlib.error, cv2.error, …
            reason = " ".join(str(error).split("<_io", 1)[0].split()) or type(error).__name__
            hint = ACCEPT if "truncated" in reason else ""
            if is_out_of_memory(error) or (not hint and lacks_memory(file, MAX_PIXELS)):
                raise DeviceError(f"out of memory while decoding {name}") from error
            if isinstance(error, UnidentifiedImageError):
                raise InputError(f"{name} is {NO_PICTURE}") from error
            raise InputError(f"{name} cannot be decoded: {reason}{hint}") from error


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
def file_of(source: Source) -> Iterator[tuple[BinaryIO, str]]:
    """The seekable file of a source, and how messages call it."""
    name = name_of(source)
    if not isinstance(source, Path):
        data = source if isinstance(source, bytes) else read_stream(source)
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


def read_stream(stream: BinaryIO) -> bytes:
    """All of a stream that may never end: what begins like no picture is not read on, and no more
    is held than a quarter of the free memory."""
    import psutil  # here, so that training runs where it is not installed

    parts = [stream.read(STREAM_HEAD)]
    if parts[0] and not begins_like_a_picture(parts[0]):
        raise InputError(f"the input stream is {NO_PICTURE}")
    length = len(parts[0])
    most = min(MAX_STREAM_BYTES, psutil.virtual_memory().available // 4)
    while part := stream.read(STREAM_PART):
        length += len(part)
        if length > most:
            raise InputError(f"the input stream is longer than {most:,} bytes; give a file")
        parts.append(part)
    return b"".join(parts)


def begins_like_a_picture(head: bytes) -> bool:
    """Whether one of the readable formats begins with these bytes."""
    if head[4:8] == b"ftyp":  # AVIF, HEIC
        return True
    load_plugins()
    accepts = (Image.OPEN[kind][1] for kind in READABLE if kind in Image.OPEN)
    head = head[:16].ljust(16, b"\0")  # they unpack it without asking how long it is
    return any(accept is not None and accept(head) for accept in accepts)


def _refuse_empty(length: int, name: str) -> None:
    if length == 0:
        raise InputError(f"{name} is empty (0 bytes)")


def identified(file: BinaryIO, name: str) -> Image.Image:
    """Inside ``decoding``: the picture of a file whose header was read and size is allowed."""
    head = file.read(12)
    file.seek(0)
    is_heif = head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS
    if is_heif and not _can_read_heif():
        raise InputError(f"{name} is HEIC; install pillow-heif to read it, or convert it to JPEG")
    load_plugins()
    formats = [kind for kind in READABLE if kind in Image.OPEN]
    image = Image.open(file, formats=formats)
    check_size(image.size, 1, name)
    return image


@cache
def load_plugins() -> None:
    """Have Pillow know the formats that are read and written here. It has forty, each a module.

    Raises ImportError where memory lacks for one: Pillow would take the format for unknown.
    """
    for name in LIBRARIES:
        _load(f"PIL._{name}")
    for name in PLUGINS:
        _load(f"PIL.{name}ImagePlugin")  # AVIF may be missing


def _load(module: str) -> Any:
    """An optional module; None where it is missing. Raises ImportError where memory lacks."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if is_out_of_memory(error):
            raise
        return None


def _can_read_heif() -> bool:
    if "HEIF" not in Image.OPEN and (heif := _load("pillow_heif")):
        heif.register_heif_opener()
    return "HEIF" in Image.OPEN


@contextlib.contextmanager
def _quiet_decoders(*, accept_damaged: bool) -> Iterator[None]:
    """No warning lines; our size limit in place of Pillow's; gaps filled where that was asked."""
    silence_libtiff()
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns there, and refuses at twice that
        ImageFile.LOAD_TRUNCATED_IMAGES = accept_damaged
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


@lru_cache
def silence_libtiff() -> None:
    """Have Pillow's libtiff write no lines of its own: its errors reach us as exceptions.

    The library is found among those that Pillow's module was linked with. Where it is part of the
    module itself (Windows) its lines are heard; so are those of dav1d, which has no such switch.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
