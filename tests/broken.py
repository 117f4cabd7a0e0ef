"""Picture files that lie: headers that promise more than follows, data that end early."""

import io
import re
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

RNG = np.random.default_rng(7)
PNG = b"\x89PNG\r\n\x1a\n"


def noise(height=20, width=24, channels=3):
    """(H, W, C) bytes; seeded, so that every run breaks the same files."""
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(image, kind, **options):
    """The bytes of a sound file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def sound(kind, height=20, width=24, **options):
    """A file of noise with nothing wrong."""
    return saved(Image.fromarray(noise(height, width)), kind, **options)


def png_chunk(name, body):
    """A chunk whose length and checksum are right."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(width, height, rows, *, bits=8, colour=2, interlaced=0):
    """A PNG of the size it says, with whatever ``rows`` are given."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return PNG + b"".join(
        png_chunk(name, body)
        for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def one_bit_png(side):
    """A few kilobytes that say side × side pixels, all of them there."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = b"\0" + bytes(-(-side // 8))
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return PNG + b"".join(png_chunk(name, body) for name, body in chunks)


def short_png(**options):
    """Its image data end with the tenth of twenty rows; every checksum is right."""
    pixel = 3 * options.get("bits", 8) // 8
    rows = b"".join(b"\0" + RNG.bytes(24 * pixel) for _ in range(10))
    return png_of(24, 20, rows, **options)


def flipped_png():
    """One bit of the pixels is another; the chunk's checksum was mended, the stream's was not."""
    rows = b"".join(b"\0" + RNG.bytes(72) for _ in range(20))
    packed = bytearray(zlib.compress(rows, 0))
    packed[300] ^= 1
    header = struct.pack(">IIBBBBB", 24, 20, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", bytes(packed)), (b"IEND", b""))
    return PNG + b"".join(png_chunk(name, body) for name, body in chunks)


def cut_jpeg(share=0.5, **options):
    """Cut in its entropy-coded data and closed with the end marker."""
    whole = sound("JPEG", 64, 64, quality=90, **options)
    return whole[: int(len(whole) * share)] + b"\xff\xd9"


def holed(kind="JPEG", start=0.5, length=0.02, **options):
    """Zeros over a part of a JPEG's entropy-coded data; both ends are as they were."""
    whole = bytearray(sound(kind, 64, 64, quality=90, **options))
    first = int(len(whole) * start)
    count = int(len(whole) * length)
    whole[first : first + count] = bytes(count)
    return bytes(whole)


def jpeg_without_a_restart():
    """One of the stretches between restart markers is missing."""
    whole = sound("JPEG", 64, 64, quality=90, restart_marker_blocks=2)
    places = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", whole)]
    return whole[: places[0]] + whole[places[1] :]


def tall_jpeg():
    """A header that says twice the height."""
    whole = sound("JPEG", 64, 64, quality=90)
    found = whole.index(b"\xff\xc0")
    return whole[: found + 5] + struct.pack(">H", 128) + whole[found + 7 :]


def tall_tiff():
    """A header of forty rows over five strips of four."""
    pixels = noise()
    body = pixels.tobytes()
    strip = 24 * 3 * 4
    entries = [
        (256, 3, 1, 24), (257, 3, 1, 40), (258, 3, 3, None), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 5, None), (277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 5, None), (284, 3, 1, 1),
    ]  # fmt: skip
    after = 8 + 2 + 12 * len(entries) + 4
    extra = {
        258: struct.pack("<3H", 8, 8, 8) + b"\0\0",
        273: b"",
        279: struct.pack("<5I", *[strip] * 5),
    }
    start = after + 8 + 20 + 20
    extra[273] = struct.pack("<5I", *(start + n * strip for n in range(5)))
    places, position = {}, after
    for tag in (258, 273, 279):
        places[tag] = position
        position += len(extra[tag])
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, count, places.get(tag, value))
        for tag, kind, count, value in entries
    )
    parts = b"".join(extra[tag] for tag in (258, 273, 279))
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + parts + body


def short_strip(compression):
    """A compressed TIFF whose only strip is half as long as it should be."""
    whole = sound("TIFF", 64, 64, compression=compression)
    length = Image.open(io.BytesIO(whole)).tag_v2[279][0]
    said = struct.pack("<HHII", 279, 4, 1, length)
    assert whole.count(said) == 1
    return whole.replace(said, struct.pack("<HHII", 279, 4, 1, length // 2))


def lab_tiff():
    """Noise in CIELab."""
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(noise()), srgb, lab, outputMode="LAB")
    return saved(image, "TIFF", icc_profile=b"x" * 128)


def turned(kind, orientation=6, height=20, width=24):
    """A file whose rows are height × width and which is shown turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(noise(height, width)), kind, exif=exif)


def animation(kind, frames=3, height=9, width=12, **options):
    """Frames of noise."""
    first, *rest = (Image.fromarray(noise(height, width)) for _ in range(frames))
    return saved(first, kind, save_all=True, append_images=rest, duration=40, **options)


def mutated(data, rng):
    """The same file with a few bytes changed, doubled or cut off."""
    changed = bytearray(data)
    reach = len(changed) if rng.random() < 0.5 else min(len(changed), 200)  # headers matter most
    for _ in range(rng.choice([1, 1, 2, 4, 30])):
        changed[rng.randrange(reach)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    if rng.random() < 0.2:
        start = rng.randrange(len(changed))
        changed[start:start] = changed[start : start + rng.randrange(64)]
    return bytes(changed[: rng.randrange(1, len(changed))] if rng.random() < 0.2 else changed)


def mended(data):
    """The same PNG with right checksums, so that what stands in the chunks is looked at."""
    if not data.startswith(PNG):
        return data
    out, position = data[:8], 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        body = data[position + 4 : position + 8 + length]
        out += data[position : position + 4] + body + struct.pack(">I", zlib.crc32(body))
        position += 12 + length
    return out
