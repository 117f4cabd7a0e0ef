"""Files that lie about themselves: damage is said, sizes agree, mutated files end in one line."""

import io
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from broken import (
    animation,
    cut_jpeg,
    flipped_png,
    holed,
    jpeg_without_a_restart,
    lab_tiff,
    mended,
    mutated,
    saved,
    short_png,
    short_strip,
    sound,
    tall_jpeg,
    tall_tiff,
    turned,
)
from fakes import photo, read_frames
from PIL import Image, PngImagePlugin, TiffImagePlugin

from yoda_cli.errors import InputError, OutputError
from yoda_cli.images import (
    Metadata,
    Picture,
    encode_picture,
    made_by_yoda,
    peek,
    read_picture,
)

DAMAGED = {
    "short.png": short_png(),
    "deep.png": short_png(bits=16),
    "interlaced.png": short_png(interlaced=1),
    "flipped.png": flipped_png(),
    "cut.jpg": cut_jpeg(),
    "nearly.jpg": cut_jpeg(0.95),
    "progressive.jpg": cut_jpeg(progressive=True),
    "grey.jpg": cut_jpeg(0.7, subsampling="4:4:4"),
    "tall.jpg": tall_jpeg(),
    "holed.jpg": holed(),
    "hole at the start.jpg": holed(start=0.35, length=0.01),
    "holed, progressive.jpg": holed(progressive=True),
    "holed between restarts.jpg": holed(restart_marker_blocks=2),
    "a restart lost.jpg": jpeg_without_a_restart(),
    "tall.tif": tall_tiff(),
    "holed.tif": holed("TIFF", start=0.3, compression="jpeg"),
}
SOUND = {
    "plain.png": sound("PNG"),
    "plain.jpg": sound("JPEG", 33, 7),
    "progressive.jpg": sound("JPEG", 64, 64, progressive=True),
    "restarts.jpg": sound("JPEG", 64, 64, restart_marker_blocks=2),
    "optimised.jpg": sound("JPEG", 40, 40, optimize=True, quality=30),
    "grey.jpg": saved(Image.new("L", (31, 9), 77), "JPEG"),
    "no version.jpg": sound("JPEG").replace(b"JFIF\0\1", b"JFIF\0\7", 1),
    "stuffed.jpg": sound("JPEG") + bytes(100),
    "cmyk.jpg": saved(Image.new("CMYK", (31, 9), (1, 2, 3, 4)), "JPEG"),
    "mpo.jpg": animation("MPO"),
    "palette.png": saved(Image.new("P", (9, 9)), "PNG"),
    "bits.png": saved(Image.new("1", (9, 9)), "PNG"),
    "apng.png": animation("PNG"),
    "strips.tif": sound("TIFF", 200, 30),
    "lzw.tif": sound("TIFF", compression="tiff_lzw"),
    "jpeg.tif": sound("TIFF", 64, 64, compression="jpeg"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused_and_read_with_a_notice_when_that_is_asked_for(name):
    with pytest.raises(InputError, match=r"damaged: .*--accept-damaged"):
        read_picture(DAMAGED[name])
    picture = read_picture(DAMAGED[name], accept_damaged=True)
    assert any(notice.startswith("damaged: ") for notice in picture.notices)
    assert picture.rgb.isfinite().all()


@pytest.mark.parametrize("many", [False, True])
def test_the_command_line_refuses_damage_and_enlarges_it_when_that_is_asked_for(
    yoda, tmp_path, tiny_checkpoint, many
):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for name in ("short.png", "holed.jpg", "tall.tif"):
        (folder / name).write_bytes(DAMAGED[name])
    paths = [folder] if many else sorted(folder.iterdir())
    fast = ["--model", tiny_checkpoint, "--steps", "1", "--json", "-o", out]
    for path in paths:
        refused = yoda("upscale", path, *fast)
        assert refused.code == 4
        assert refused.err.count("is damaged: ") == refused.err.count("--accept-damaged") > 0
        assert not list(out.iterdir())
        done = yoda("upscale", path, *fast, "--accept-damaged")
        assert done.code == 0, done.err
        assert "damaged: " in done.err
        for line in done.out.splitlines():
            record = json.loads(line)
            assert any(notice.startswith("damaged: ") for notice in record["notices"])
            header = peek(Path(record["output"]))
            assert (header.width, header.height) == (record["width"], record["height"])
        for made in list(out.iterdir()):
            made.unlink()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_truncated_files_are_read_as_far_as_they_go_when_that_is_asked_for(kind):
    whole = sound(kind, 40, 40)
    cut = whole[: int(len(whole) * 0.7)]
    with pytest.raises(InputError, match="--accept-damaged"):
        read_picture(cut)
    picture = read_picture(cut, accept_damaged=True)
    assert picture.rgb.shape == (1, 3, 40, 40)
    assert any(notice.startswith("damaged: ") for notice in picture.notices)


@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_said_against_sound_files(name):
    for accept in (False, True):
        picture = read_picture(SOUND[name], accept_damaged=accept)
        assert not any("damaged" in notice for notice in picture.notices)


def test_what_is_no_picture_stays_refused_when_damage_is_accepted():
    with pytest.raises(InputError, match="not a picture"):
        read_picture(b"plain text", accept_damaged=True)


@pytest.mark.parametrize("kind", ["PNG", "APNG"])
def test_a_damaged_frame_is_damage(kind):
    data = bytearray(animation("PNG"))
    name = b"IDAT" if kind == "PNG" else b"fdAT"
    found = bytes(data).rindex(name)
    data[found + 30] ^= 8
    with pytest.raises(InputError):
        read_frames(mended(bytes(data)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_says_the_upright_size(kind, orientation):
    data = turned(kind, orientation)
    header, picture = peek(data), read_picture(data)
    assert (header.height, header.width) == picture.rgb.shape[-2:]
    assert (header.width, header.height) == ((20, 24) if orientation >= 5 else (24, 20))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_frames_are_turned_as_stills_are(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = animation(kind, exif=exif, lossless=True)
    header, frames = peek(data), read_frames(data).frames
    assert {frame.rgb.shape[-2:] for frame in frames} == {(header.height, header.width)}
    assert (header.width, header.height) == (9, 12)


def test_lab_is_converted_with_a_notice_and_without_its_profile():
    picture = read_picture(lab_tiff())
    assert "CIELab was converted to sRGB" in picture.notices
    assert picture.metadata.icc == b""
    assert 0.2 < picture.rgb.std() < 0.4


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_standard_error_is_never_diverted_and_libtiff_is_silent(monkeypatch, capfd, compression):
    data = short_strip(compression)
    place, load = os.fstat(2).st_ino, TiffImagePlugin.TiffImageFile.load
    said = b"ValueError: a line of another thread\nWARNING: one more\n"

    def watched(self):
        assert os.fstat(2).st_ino == place
        os.write(2, said)
        return load(self)

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", watched)
    with pytest.raises(InputError):
        read_picture(data)
    heard = capfd.readouterr().err
    assert heard
    assert heard.replace(said.decode(), "") == ""


def seeds():
    """One sound file of every kind and storage."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    exif.get_ifd(0x8769)[0x829A] = 0.25
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a lake", zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    files = [sound(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")]
    files += [sound(kind, exif=exif, dpi=(72, 72)) for kind in ("JPEG", "TIFF", "WEBP", "AVIF")]
    files += [sound("PNG", exif=exif, pnginfo=text), lab_tiff()]
    files += [sound("JPEG", progressive=True), sound("TIFF", compression="tiff_lzw")]
    metadata = Metadata(exif=exif.tobytes(), xmp=b"<x/>", dpi=(72.0, 72.0))
    deep = Picture(photo(12, 12), alpha=photo(12, 12)[:, :1], bits=16, metadata=metadata)
    files += [encode_picture(deep, kind=kind) for kind in ("PNG", "TIFF")]
    files += [animation(kind) for kind in ("GIF", "PNG", "WEBP", "MPO")]
    cmyk = Image.fromarray(np.full((9, 9, 4), 99, np.uint8), "CMYK")
    return [*files, saved(cmyk, "JPEG", icc_profile=b"x" * 200)]


def outcome(data, kind):
    """What was said against the file; nothing if it could be read and written again."""
    try:
        header = peek(data)
        picture = read_picture(data)
        assert (header.height, header.width) == picture.rgb.shape[-2:]
        frames = read_frames(data).frames
        assert {frame.rgb.shape for frame in frames} == {picture.rgb.shape}
        made_by_yoda(data)
        encode_picture(picture, kind=kind, provenance={"a": "b"})
    except (InputError, OutputError) as error:
        return str(error)
    return ""


def fuzz(rounds, seed):
    rng, files, refused = random.Random(seed), seeds(), 0
    for index in range(rounds):
        data = mended(mutated(files[index % len(files)], rng))
        kind = rng.choice(["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
        started = time.monotonic()
        said = outcome(data, kind)
        assert time.monotonic() - started < 30
        assert said.isprintable()
        assert "internal" not in said
        refused += bool(said)
        if said and index % 4 == 0:
            accepted(data)
    assert 0.2 * rounds < refused < 0.95 * rounds
    return refused


def accepted(data):
    """A damaged file that is accepted is read or refused in one line too."""
    said = ""
    try:
        assert read_picture(io.BytesIO(data), accept_damaged=True).rgb.isfinite().all()
    except InputError as error:
        said = str(error)
    assert said.isprintable()


@pytest.mark.parametrize("length", range(17))
def test_a_stream_of_a_few_bytes_is_refused(length):
    for head in (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"BM" + bytes(14), bytes(range(40, 56))):
        with pytest.raises(InputError):
            read_picture(io.BytesIO(head[:length]))


def test_mutated_files_are_read_or_refused_and_nothing_else():
    fuzz(300, 0)


@pytest.mark.slow
def test_ten_thousand_mutated_files_are_read_or_refused_and_nothing_else():
    fuzz(10_000, 1)
