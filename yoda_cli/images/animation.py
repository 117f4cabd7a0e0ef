"""Writing animations frame by frame: what is held is one frame, or two, and the compressed file.

Each frame of an animated PNG or GIF is a file of its own that Pillow writes; here they are joined
into one. WebP and AVIF have encoders that are fed frame by frame. Pillow's own way of saving
several frames holds them all.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from yoda_cli.images.deep import PNG_SIGNATURE, png_chunk, png_chunks

Pixels = npt.NDArray[Any]

LONGEST = 65_535  # of a frame, in the units of its format
GIF_HEADER, GIF_FRAME = 13, 10  # bytes before a colour table
EXTENSION, FRAME, TRAILER = 0x21, 0x2C, b";"
GRAPHIC_CONTROL = 0xF9
HAS_TABLE, TABLE_SIZE = 0x80, 0x07


def save_frames(
    out: BinaryIO, frames: Iterator[Pixels], kind: str, *, milliseconds: Sequence[float],
    plays: int, options: dict[str, Any],
) -> None:  # fmt: skip
    """``frames`` (H, W) or (H, W, C) uint8, all of one shape; ``options`` as Pillow takes them.

    ``plays`` 0 is for ever. Raises what Pillow raises.
    """
    if kind == "PNG":
        _save_apng(out, frames, milliseconds, plays, options)
    elif kind == "GIF":
        _save_gif(out, frames, milliseconds, plays, options)
    else:
        durations = [round(each) for each in milliseconds]
        loop = {"loop": plays} if kind == "WEBP" else {}
        _Frames(frames, len(durations)).save(
            out, kind, save_all=True, duration=durations, **loop, **options
        )


class _Frames(Image.Image):
    """Frames that are taken in turn, each when an encoder wants its pixels."""

    def __init__(self, frames: Iterator[Pixels], count: int) -> None:
        super().__init__()
        self.n_frames, self.is_animated = count, count > 1
        self._frames, self._wanted, self._held = frames, 0, -1
        self.load()

    def seek(self, frame: int) -> None:
        if not 0 <= frame < self.n_frames:
            raise EOFError
        self._wanted = frame

    def tell(self) -> int:
        return self._wanted

    def load(self) -> Any:
        while self._held < self._wanted:
            taken = Image.fromarray(next(self._frames))
            self.im, self._mode, self._size = taken.im, taken.mode, taken.size
            self._held += 1
        return super().load()


def _saved(pixels: Pixels, kind: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def _save_apng(
    out: BinaryIO, frames: Iterator[Pixels], milliseconds: Sequence[float], plays: int,
    options: dict[str, Any],
) -> None:  # fmt: skip
    """A frame after the first is the part of it that is not as before."""
    before = next(frames)
    chunks = list(png_chunks(_saved(before, "PNG", options)))
    data = b"".join(body for name, body in chunks if name == b"IDAT")
    (header, *others), end = [c for c in chunks if c[0] != b"IDAT" and c[0] != b"IEND"], chunks[-1]
    out.write(PNG_SIGNATURE + png_chunk(*header))
    out.write(png_chunk(b"acTL", struct.pack(">II", len(milliseconds), plays)))
    out.writelines(png_chunk(*chunk) for chunk in others)
    whole = (slice(0, before.shape[0]), slice(0, before.shape[1]))
    out.write(_frame_control(0, whole, milliseconds[0]) + png_chunk(b"IDAT", data))
    number = 1
    for frame, shown in zip(frames, milliseconds[1:], strict=True):
        part = changed(before, frame)
        made = png_chunks(_saved(np.ascontiguousarray(frame[part]), "PNG", {}))
        data = b"".join(body for name, body in made if name == b"IDAT")
        out.write(_frame_control(number, part, shown))
        out.write(png_chunk(b"fdAT", struct.pack(">I", number + 1) + data))
        number, before = number + 2, frame
    out.write(png_chunk(*end))


def _frame_control(number: int, part: tuple[slice, slice], milliseconds: float) -> bytes:
    """Where a frame lies and how long it is shown; it replaces what was there and stays."""
    rows, columns = part
    return png_chunk(
        b"fcTL",
        struct.pack(
            ">IIIIIHHBB", number, columns.stop - columns.start, rows.stop - rows.start,
            columns.start, rows.start, min(round(milliseconds), LONGEST), 1000, 0, 0,
        ),
    )  # fmt: skip


def changed(before: Pixels, after: Pixels) -> tuple[slice, slice]:
    """The rows and columns of the smallest part that holds every difference, one pixel at least."""
    differs = before != after
    differs = differs if differs.ndim == 2 else differs.any(2)
    spans = []
    for axis in (1, 0):
        found = np.nonzero(differs.any(axis))[0]
        spans.append(slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 1))
    return spans[0], spans[1]


def _save_gif(
    out: BinaryIO, frames: Iterator[Pixels], milliseconds: Sequence[float], plays: int,
    options: dict[str, Any],
) -> None:  # fmt: skip
    """Every frame has a palette of its own; the first one's stands where all could share it."""
    loop = {} if plays == 1 else {"loop": plays}
    for number, (frame, shown) in enumerate(zip(frames, milliseconds, strict=True)):
        first = {**options, **loop} if number == 0 else {}
        hundredths = min(round(shown), 10 * LONGEST)
        data = _saved(frame, "GIF", {**first, "duration": hundredths, "disposal": 2})
        out.write(data[:-1] if number == 0 else b"".join(_gif_frame(data)))
    out.write(TRAILER)


def _gif_frame(data: bytes) -> Iterator[bytes]:
    """The only frame of a GIF as a further one: its timing, its place, its palette, its pixels."""
    packed = data[10]
    position = GIF_HEADER
    palette = b""
    if packed & HAS_TABLE:
        position += 3 << ((packed & TABLE_SIZE) + 1)
        palette = data[GIF_HEADER:position]
    while data[position] == EXTENSION:
        end = _after_blocks(data, position + 2)
        if data[position + 1] == GRAPHIC_CONTROL:
            yield data[position:end]
        position = end
    frame = bytearray(data[position : position + GIF_FRAME])
    position += GIF_FRAME
    if palette and not frame[-1] & HAS_TABLE:
        frame[-1] |= HAS_TABLE | packed & TABLE_SIZE
        yield bytes(frame) + palette
    else:
        yield bytes(frame)
    yield data[position:-1]


def _after_blocks(data: bytes, position: int) -> int:
    """Where a chain of sub-blocks that begins at ``position`` has ended."""
    while length := data[position]:
        position += 1 + length
    return position + 1
