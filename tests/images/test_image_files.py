"""Files that are no pictures, writes that fail, names nobody expects."""

import io
import os
import resource
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from cases import NAMES
from fakes import photo, read_frames
from PIL import Image, PngImagePlugin

from yoda_cli.errors import InputError, NotFoundError
from yoda_cli.images import (
    MAX_PIXELS,
    Picture,
    encode_picture,
    made_by_yoda,
    pixels,
    read_picture,
    shown,
    write_picture,
)

KINDS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"]
RNG = np.random.default_rng(0)


def file_of(kind, size=(24, 24), **options):
    out = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(out, kind, **options)
    return out.getvalue()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def refusal(source):
    with pytest.raises(InputError) as caught:
        read_picture(source)
    text = str(caught.value)
    assert text.isprintable()
    assert "<_io" not in text
    return text


def test_missing_files_are_told_from_unreadable_ones(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    missing = ["nosuch.png", "nosuch/a.png", "file/a.png", "nul\0.png"]
    for name in missing:
        with pytest.raises(NotFoundError, match="no such file"):
            read_picture(tmp_path / name)
    assert "is a folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert "no regular file" in refusal(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert "cannot read" in refusal(tmp_path / "loop.png")


def test_a_file_that_may_not_be_read_is_refused_with_the_reason(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(file_of("PNG"))

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", denied)
    assert refusal(path).endswith("Permission denied")


@pytest.mark.parametrize(
    "content", [b"", b"this is not a picture\n", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
)
def test_files_without_a_picture_in_them_are_refused(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    text = refusal(path)
    assert text.startswith(str(path))
    assert ("empty" in text) == (content == b"")
    assert refusal(content).startswith("the input stream")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_truncated_files_are_refused(kind, share, capfd):
    whole = file_of(kind, (40, 40))
    assert read_picture(whole).rgb.shape == (1, 3, 40, 40)
    refusal(whole[: int(len(whole) * share)])
    assert capfd.readouterr().err == ""


def test_truncated_sixteen_bit_files_are_refused():
    for kind in ("PNG", "TIFF"):
        whole = encode_picture(Picture(photo(30, 30), bits=16), kind=kind)
        refusal(whole[: len(whole) // 2])


def test_a_file_of_another_kind_is_read_by_what_it_is(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(file_of("JPEG"))
    assert read_picture(path).metadata.kind == "JPEG"


@pytest.mark.parametrize(
    "size", [(1 << 14, (1 << 14) + 1), (1_000_001, 1), (1, 1_000_001), (2**31 - 1, 2**31 - 1)]
)
def test_absurd_headers_are_refused_before_memory_is_taken(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    width, height = size
    bodies = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    bodies += [chunk(b"IDAT", zlib.compress(b"\0" * 1000)), chunk(b"IEND", b"")]
    text = refusal(b"\x89PNG\r\n\x1a\n" + b"".join(bodies))
    assert f"{width}×{height}" in text or f"{width * height:,}" in text
    assert f"{MAX_PIXELS:,}" in text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_an_absurd_header_of_other_formats_is_refused_too():
    gif = bytearray(file_of("GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    bmp = bytearray(file_of("BMP"))
    bmp[18:26] = struct.pack("<ii", 1 << 20, 1 << 20)
    for data in (gif, bmp):
        assert "too large" in refusal(bytes(data))


def test_pictures_beyond_pillows_own_limit_are_read_in_silence(monkeypatch, capfd):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = file_of("PNG")
    assert read_picture(data).rgb.shape == (1, 3, 24, 24)
    assert Image.MAX_IMAGE_PIXELS == 10
    assert capfd.readouterr().err == ""


def test_an_animation_counts_all_its_frames_against_the_limit(monkeypatch):
    frames = [Image.new("RGB", (10, 10), (i, 0, 0)) for i in range(5)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    monkeypatch.setattr("yoda_cli.images.opening.MAX_PIXELS", 499)
    read_picture(out.getvalue())
    with pytest.raises(InputError, match="10×10 × 5 frames"):
        read_frames(out.getvalue())


def test_a_gif_that_grows_with_a_later_frame_keeps_its_size_and_the_limit():
    frames = [Image.new("RGB", (10, 9), (i, 0, 0)) for i in (0, 200)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    data = out.getvalue()
    extent = struct.pack("<HH", 10, 9)
    at = data.rindex(b"\x2c\0\0\0\0" + extent) + 1
    moved, far = (data[:at] + struct.pack("<HH", x, x) + data[at + 4 :] for x in (7, 65_535))
    assert [f.rgb.shape for f in read_frames(moved).frames] == [(1, 3, 9, 10)] * 2
    with pytest.raises(InputError, match=f"too large: {65_545 * 65_544:,} pixels"):
        read_frames(far)


def test_heic_without_its_plug_in_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "install pillow-heif" in refusal(b"\0\0\0\x18ftypheic" + b"\0" * 40)


def test_a_stream_is_read_like_a_file():
    data = file_of("PNG")
    assert torch.equal(read_picture(io.BytesIO(data)).rgb, read_picture(data).rgb)


@pytest.mark.parametrize("error", [RecursionError, SyntaxError, OverflowError])
def test_whatever_a_decoder_raises_is_one_line(monkeypatch, error):
    def fail(self):
        raise error("line one\nline two")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    refusal(file_of("PNG"))


def test_warnings_of_the_decoders_are_not_heard_and_filters_come_back(recwarn, capfd):
    before = list(warnings.filters)
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b")
    odd = file_of("TIFF", tiffinfo={270: "x"})
    for data in (odd, odd[:-20], file_of("PNG", pnginfo=text)):
        try:
            read_picture(data)
        except InputError:
            continue
    assert list(warnings.filters) == before
    assert len(recwarn) == 0
    assert capfd.readouterr().err == ""


def test_files_are_read_without_a_standard_error():
    code = "import os, sys; os.close(2); from yoda_cli.images import read_picture; "
    code += "print(read_picture(sys.stdin.buffer).rgb.shape[-1])"
    done = subprocess.run(
        [sys.executable, "-c", code], input=file_of("TIFF"), stdout=-1, check=True
    )
    assert done.stdout == b"24\n"


def test_threads_read_side_by_side_and_leave_the_settings_alone():
    data = [file_of(kind) for kind in KINDS]
    expected = [read_picture(d).rgb for d in data]
    before = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    wrong = []

    def work():
        for _ in range(5):
            wrong.extend(
                i for i, d in enumerate(data) if not torch.equal(read_picture(d).rgb, expected[i])
            )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == before


@pytest.mark.parametrize("name", NAMES)
def test_unusual_names_work(tmp_path, name):
    path = tmp_path / name
    write_picture(path, Picture(photo(3, 3)), kind="PNG", provenance={"a": "b"})
    assert read_picture(path).rgb.shape == (1, 3, 3, 3)
    assert made_by_yoda(path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_names_that_are_no_text_work_and_can_be_shown(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\x1b[31m\n.png")
    write_picture(path, Picture(photo(3, 3)), kind="PNG")
    assert read_picture(path).rgb.shape == (1, 3, 3, 3)
    assert shown(path) == f"{tmp_path}/\\xff\\x1b[31m\\n.png"
    path.write_bytes(b"no picture")
    assert "\\xff\\x1b[31m\\n.png" in refusal(path)


def test_a_bmp_says_behind_its_pixels_that_yoda_made_it(tmp_path):
    from yoda_cli.images import made_by_yoda, read_provenance

    rgb = torch.rand(1, 3, 5, 7)
    plain = encode_picture(Picture(rgb), kind="BMP")
    marked = encode_picture(Picture(rgb), kind="BMP", provenance={"seed": "7"})
    (tmp_path / "plain.bmp").write_bytes(plain)
    (tmp_path / "marked.bmp").write_bytes(marked)
    assert marked.startswith(plain)
    assert not made_by_yoda(tmp_path / "plain.bmp")
    assert read_provenance(tmp_path / "marked.bmp") == {"seed": "7"}
    with Image.open(tmp_path / "marked.bmp") as ours, Image.open(tmp_path / "plain.bmp") as other:
        assert ours.tobytes() == other.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F", "CMYK"])
def test_pictures_are_read_band_by_band_as_they_are_whole(monkeypatch, mode):
    """Pillow's own conversion of the whole picture takes twice the memory."""
    colours = np.random.default_rng(0).integers(0, 256, (37, 23, 3), dtype=np.uint8)
    image = Image.fromarray(colours).convert("L" if mode in ("I;16", "F") else "RGB").convert(mode)
    if mode == "P":
        image.info["transparency"] = 3
    whole = pixels.read_8(image).values
    monkeypatch.setattr(pixels, "BAND_PIXELS", 5 * 23)
    banded = pixels.read_8(image).values
    assert np.array_equal(whole, banded)
    if mode == "P":
        assert np.array_equal(whole, np.asarray(image.convert("RGBA")))


@pytest.mark.parametrize("quality", [None, 60, 94, 100])
def test_noise_is_written_as_jpeg(quality, capfd):
    """For code tables of its own Pillow keeps too small a buffer."""
    noise = torch.rand(1, 3, 200, 300, generator=torch.Generator().manual_seed(0))
    data = encode_picture(Picture(noise), kind="JPEG", quality=quality)
    with Image.open(io.BytesIO(data)) as image:
        assert np.asarray(image).shape == (200, 300, 3)
    assert capfd.readouterr().err == ""


def test_code_tables_of_a_jpeg_are_its_own():
    """A smooth picture's file is smaller by them."""
    ramp = torch.linspace(0, 1, 300).expand(1, 3, 200, 300)
    data = encode_picture(Picture(ramp), kind="JPEG")
    usual = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(usual, "JPEG", quality=95, subsampling="4:4:4")
    assert len(data) < len(usual.getvalue())
