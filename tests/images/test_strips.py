"""What is read in strips is what Pillow reads: pixels, metadata, refusals."""

import errno
import io
import os
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import photo
from PIL import Image, ImageCms, PngImagePlugin

from yoda_cli.devices import memory
from yoda_cli.devices.memory import Scratch
from yoda_cli.errors import InputError
from yoda_cli.images import read_picture
from yoda_cli.images import strips as module
from yoda_cli.images.deep import PNG_SIGNATURE, png_chunk
from yoda_cli.images.strips import read_strips

pytest.importorskip("pyvips")
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True)
def little_at_a_time(monkeypatch):
    """Several strips and several parts of each, all arrays in files."""
    monkeypatch.setattr(memory, "TO_DISK", 1)
    monkeypatch.setattr(module, "TOUCHED", 1000)


def colours(height=37, width=53):
    return Image.fromarray((photo(height, width)[0].permute(1, 2, 0) * 255).byte().numpy())


def oriented(number):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = number, "a place"
    return exif


def both(path):
    strips, whole = read_strips(path, Scratch(path.parent)), read_picture(path, as_bytes=True)
    assert strips is not None
    return strips, whole


def check(path):
    strips, whole = both(path)
    assert strips.rgb.dtype == torch.uint8
    torch.testing.assert_close(strips.rgb, whole.rgb, rtol=0, atol=0)
    assert replace(strips, rgb=whole.rgb) == whole
    assert list(path.parent.iterdir()) == [path]  # nothing with a name is left
    return strips


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path, suffix, mode, orientation):
    path = tmp_path / f"in.{suffix}"
    colours().convert(mode).save(path, exif=oriented(orientation), dpi=(300, 200))
    seen = check(path)
    assert seen.rgb.shape[-2:] == ((53, 37) if orientation >= 5 else (37, 53))
    assert seen.is_grey == (mode == "L")


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("jpg", {"progressive": True, "quality": 60}),
        ("jpg", {"subsampling": 2, "quality": 95, "icc_profile": ICC, "comment": b"hello"}),
        ("tif", {"compression": "tiff_lzw", "icc_profile": ICC}),
        ("tif", {"compression": "tiff_deflate", "tiffinfo": {317: 2}}),
        ("tif", {"compression": "packbits"}),
        ("png", {"icc_profile": ICC, "compress_level": 1}),
    ],
)
def test_ways_of_packing_are_the_same(tmp_path, suffix, options):
    path = tmp_path / f"in.{suffix}"
    colours(150, 170).save(path, **options)
    check(path)


def test_colours_that_are_grey_are_found(tmp_path):
    colours().convert("L").convert("RGB").save(tmp_path / "in.png")
    assert check(tmp_path / "in.png").is_grey


@pytest.mark.parametrize("colours_of", [2, 4, 16, 200])
def test_palettes_are_spread_out(tmp_path, colours_of):
    colours().quantize(colours_of).save(tmp_path / "in.png")
    check(tmp_path / "in.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_are_spread_out(tmp_path, bits):
    width, height = 50, 20
    rows = np.random.default_rng(bits).integers(0, 256, (height, -(-width * bits // 8)))
    data = b"".join(b"\0" + bytes(row.astype(np.uint8)) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    path = tmp_path / "in.png"
    path.write_bytes(PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks))
    check(path)


def test_what_stands_after_the_pixels_of_a_png_is_read(tmp_path):
    path, text = tmp_path / "in.png", PngImagePlugin.PngInfo()
    text.add(b"tEXt", b"after\0the pixels", after_idat=True)
    text.add_text("before", "them")
    colours(300, 300).save(path, pnginfo=text, exif=oriented(6))
    assert check(path).metadata.text == {"before": "them", "after": "the pixels"}


@pytest.mark.parametrize("name", ["a[1].png", "[page=3].jpg", "ü ñ.tif", os.fsdecode(b"\xff.png")])
def test_a_name_is_a_name(tmp_path, name):
    colours().save(tmp_path / name)
    check(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "image", "options"),
    [
        ("in.png", colours().convert("RGBA"), {}),
        ("in.png", colours().convert("I;16"), {}),
        ("in.png", colours().quantize(4), {"transparency": 1}),
        ("in.jpg", colours().convert("CMYK"), {}),
        ("in.tif", colours().convert("1"), {}),
        ("in.tif", colours().quantize(4), {}),
        ("in.webp", colours(), {}),
        ("in.bmp", colours(), {}),
    ],
)
def test_what_decoders_may_differ_about_is_left_to_pillow(tmp_path, name, image, options):
    image.save(tmp_path / name, **options)
    assert read_strips(tmp_path / name, Scratch(tmp_path)) is None


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_cut_files_are_left_to_be_refused(tmp_path, capfd, suffix, share):
    path = tmp_path / f"in.{suffix}"
    buffer = io.BytesIO()
    colours(150, 170).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, "PNG"))
    path.write_bytes(buffer.getvalue()[: int(share * len(buffer.getvalue()))])

    def read():
        return read_strips(path, Scratch(tmp_path)) or read_picture(path)

    with pytest.raises(InputError):
        read()
    assert capfd.readouterr().err == ""


def test_a_full_disk_is_no_fault_of_the_picture(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory, "_reserve", full)
    colours().save(tmp_path / "in.png")
    with pytest.raises(OSError, match="No space left"):
        read_strips(tmp_path / "in.png", Scratch(tmp_path))


@pytest.mark.parametrize("system", ["able", "without", "unable"])
def test_arrays_on_disk_keep_what_was_let_go(tmp_path, monkeypatch, system):
    def unable(*arguments):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if system == "without":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif system == "unable":
        monkeypatch.setattr(os, "posix_fallocate", unable, raising=False)
    held = Scratch(tmp_path).zeros(3, 1000, 1000)
    assert not held.any()
    held += torch.arange(1000.0)
    memory.release_pages()
    assert torch.equal(held[2, 999], torch.arange(1000.0))
    assert list(tmp_path.iterdir()) == []
    assert Scratch(tmp_path).zeros(1, 3, 0, 5).shape == (1, 3, 0, 5)
