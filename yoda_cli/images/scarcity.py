"""Whether memory was what a decoder lacked, where it says only that something went wrong.

libwebp ("could not create decoder object"), libavif, libjpeg and libtiff by Pillow, and a module
that the system's loader found no room for all end like a damaged file. So the system is asked
whether it would have given what the picture takes.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL import Image

from yoda_cli.devices.memory import can_be_had

#: Bytes that a decoder takes whatever the picture: its module, tables, threads. libavif's module
#: takes 19 MB and a stack 8.
DECODER_ROOM = 32 << 20
#: Bytes a pixel that it holds at once; counted: of WebP two canvases, what is unpacked, transforms
#: and the result, all of 4; of AVIF the planes of two frames of 16 bits, and the result; of a
#: progressive JPEG four coefficients of 2 and the result.
DECODING_BYTES = {b"WEBP": 24, b"ftyp": 20}
OTHERS_BYTES = 12
OTHERS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "HEIF")

HEAD_BYTES = 1 << 16  # an AVIF says its size after its metadata's table


def lacks_memory(file: BinaryIO, most: int) -> bool:
    """Whether the system would not give what decoding the picture of a file takes.

    One that says it has more than ``most`` pixels is refused for that, or damaged.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    each = DECODING_BYTES.get(head[8:12], DECODING_BYTES.get(head[4:8], OTHERS_BYTES))
    width, height = _size_said(head, file)
    return width * height <= most and not can_be_had(DECODER_ROOM + each * width * height)


def _size_said(head: bytes, file: BinaryIO) -> tuple[int, int]:
    """Width and height as the header has them; zeros where it has none that can be read."""
    try:
        if head[8:12] == b"WEBP":
            return _webp_size(head)
        if head[4:8] == b"ftyp":
            return _avif_size(head)
        file.seek(0)
        known = [kind for kind in OTHERS if kind in Image.OPEN]
        with Image.open(file, formats=known) as image:
            return image.size
    except Exception:  # damaged, or memory lacks even for that; then the room alone is asked for
        return 0, 0


def _webp_size(head: bytes) -> tuple[int, int]:
    """Of a RIFF file's first chunk: extended, lossless or lossy (RFC 9649)."""
    if head[12:16] == b"VP8X":
        return (
            int.from_bytes(head[24:27], "little") + 1,
            int.from_bytes(head[27:30], "little") + 1,
        )
    if head[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def _avif_size(head: bytes) -> tuple[int, int]:
    """The largest of the items' sizes: boxes ``ispe`` (ISO/IEC 23008-12)."""
    found, at = [(0, 0)], head.find(b"ispe")
    while at >= 0:
        found.append(struct.unpack_from(">II", head, at + 8))
        at = head.find(b"ispe", at + 1)
    return max(found, key=lambda size: size[0] * size[1])
