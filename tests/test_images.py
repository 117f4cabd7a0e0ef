"""Files and pictures: what is kept, what is converted, what is refused."""

import contextlib
import io
import random

import cv2
import numpy as np
import pytest
import torch
from fakes import photo
from PIL import Image, ImageCms, PngImagePlugin

from yoda_cli.errors import InputError, NotFoundError, OutputError
from yoda_cli.images import (
    Picture,
    check_format_size,
    encode_picture,
    fill_transparent,
    format_of,
    made_by_yoda,
    output_format_for,
    read_picture,
    write_picture,
)

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RNG = np.random.default_rng(0)


def pixels(*shape, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def saved(tmp_path, image, name="in.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (1, 500)])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_eight_bit_pictures_survive_reading_and_writing(tmp_path, size, suffix):
    data = pixels(*size, 3)
    options = {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path, Image.fromarray(data), f"in{suffix}", **options)
    picture = read_picture(path)
    assert picture.rgb.shape == (1, 3, *size)
    again = encode_picture(picture, kind="PNG")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(again))), data)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_stay_sixteen_bits(tmp_path, suffix, channels):
    data = pixels(6, 5, channels, dtype=np.uint16)
    if channels == 4:
        data[..., 3] |= 1  # no fully transparent pixel
    swapped = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]  # OpenCV's order
    order = data[..., swapped].squeeze()
    path = tmp_path / f"in{suffix}"
    assert cv2.imwrite(str(path), order)
    picture = read_picture(path)
    assert picture.bits == 16
    assert picture.is_grey == (channels == 1)
    expected = torch.from_numpy(data[..., :3].astype(np.float32) / 65535).permute(2, 0, 1)[None]
    assert torch.allclose(picture.rgb, expected.expand(1, 3, 6, 5), atol=1e-7)
    write_picture(tmp_path / f"out{suffix}", picture, kind=output_format_for(picture, suffix)[0])
    back = cv2.imread(str(tmp_path / f"out{suffix}"), cv2.IMREAD_UNCHANGED)
    assert back.dtype == np.uint16
    assert np.array_equal(back, order)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_and_reset(tmp_path, orientation):
    from PIL import ImageOps

    image = Image.fromarray(pixels(8, 16, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    path = saved(tmp_path, image, "in.png", exif=exif)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    picture = read_picture(path)
    shown = (picture.rgb[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(shown, expected)
    out = Image.open(io.BytesIO(encode_picture(picture, kind="PNG")))
    assert out.getexif().get(0x0112, 1) == 1
    assert out.getexif()[0x010F] == "maker"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_sixteen_bit_pictures_too(tmp_path, orientation):
    data = pixels(4, 6, 3, dtype=np.uint16)
    small = Image.fromarray((data >> 8).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    eight = read_picture(saved(tmp_path, small, "eight.png", exif=exif))
    packed = cv2.imencode(".png", data[..., ::-1])[1].tobytes()
    with Image.open(tmp_path / "eight.png") as opened:
        with_exif = opened.info["exif"]
    import struct
    import zlib

    body = b"eXIf" + with_exif.removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "deep.png").write_bytes(packed[:33] + chunk + packed[33:])
    deep = read_picture(tmp_path / "deep.png")
    assert deep.bits == 16
    assert deep.rgb.shape == eight.rgb.shape
    assert (deep.rgb - eight.rgb).abs().max() < 1 / 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("bits", [8, 16])
def test_profile_resolution_and_exif_survive(tmp_path, kind, bits):
    if bits == 16 and kind != "PNG":
        pytest.skip("16 bits with a profile: PNG only")
    exif = Image.Exif()
    exif[0x010F] = "maker"
    source = saved(
        tmp_path, Image.fromarray(pixels(5, 5, 3)), icc_profile=ICC, dpi=(300, 300), exif=exif
    )
    from dataclasses import replace

    picture = replace(read_picture(source), bits=bits)
    out = Image.open(io.BytesIO(encode_picture(picture, kind=kind, provenance={"model": "m"})))
    assert out.info["icc_profile"] == ICC
    assert out.getexif()[0x010F] == "maker"
    if kind != "WEBP":
        assert out.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_png_text_survives_and_an_old_provenance_does_not(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a lake")
    info.add_text("yoda", "old")
    picture = read_picture(saved(tmp_path, Image.fromarray(pixels(3, 3, 3)), pnginfo=info))
    out = Image.open(io.BytesIO(encode_picture(picture, kind="PNG")))
    assert out.text == {"Title": "a lake"}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_yoda_knows_its_own_work(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    picture = Picture(photo(4, 4))
    write_picture(path, picture, kind=format_of(path))
    assert not made_by_yoda(path)
    write_picture(path, picture, kind=format_of(path), provenance={"model": "m"})
    assert made_by_yoda(path)
    assert not made_by_yoda(tmp_path / "nosuch.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK", "YCbCr"])
def test_every_mode_is_read_as_what_it_shows(tmp_path, mode):
    image = Image.fromarray(pixels(9, 9, 3))
    if mode == "I;16":
        image = Image.fromarray(pixels(9, 9, dtype=np.uint16))
    elif mode == "RGBA":
        image = Image.fromarray(pixels(9, 9, 4))
    else:
        image = image.convert(mode)
    suffix = ".jpg" if mode in ("CMYK", "YCbCr") else ".png"
    picture = read_picture(saved(tmp_path, image, f"in{suffix}"))
    assert picture.rgb.shape == (1, 3, 9, 9)
    assert picture.is_grey == (mode in ("1", "L", "LA", "I;16"))
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    assert bool(picture.notices) == (mode == "CMYK")
    written = Image.open(io.BytesIO(encode_picture(picture, kind="PNG")))
    assert written.mode in {"L", "LA", "RGB", "RGBA", "I;16"}
    if mode in ("L", "LA", "RGBA"):
        assert np.array_equal(np.asarray(written), np.asarray(image))


def test_a_transparent_palette_has_alpha(tmp_path):
    image = Image.fromarray(pixels(8, 8) % 4).convert("P")
    picture = read_picture(saved(tmp_path, image, transparency=1))
    assert picture.alpha is not None
    assert picture.alpha.min() == 0


def test_jpeg_is_flattened_onto_white():
    transparent = Picture(torch.zeros(1, 3, 4, 4), alpha=torch.zeros(1, 1, 4, 4))
    out = np.asarray(Image.open(io.BytesIO(encode_picture(transparent, kind="JPEG"))))
    assert out.min() > 250


def test_jpeg_keeps_full_colour_resolution():
    out = Image.open(io.BytesIO(encode_picture(Picture(photo(16, 16)), kind="JPEG")))
    assert out.layer[0][1:3] == out.layer[1][1:3]


def test_hidden_colours_do_not_bleed_into_edges():
    rgb = torch.zeros(1, 3, 40, 40)
    rgb[:, 0, :, 20:] = 1.0
    alpha = torch.zeros(1, 1, 40, 40)
    alpha[..., 20:] = 1.0
    filled = fill_transparent(rgb, alpha)
    assert torch.equal(filled[..., 20:], rgb[..., 20:])
    assert torch.allclose(filled[:, 0], torch.ones(1, 40, 40))
    assert fill_transparent(rgb, torch.zeros(1, 1, 40, 40)).abs().max() == 0


def test_values_are_rounded_half_up():
    picture = Picture(torch.full((1, 3, 1, 1), 127.5 / 255), is_grey=True)
    assert np.asarray(Image.open(io.BytesIO(encode_picture(picture, kind="PNG"))))[0, 0] == 128


def test_the_input_format_is_kept_where_it_can_hold_the_picture(tmp_path):
    path = saved(tmp_path, Image.fromarray(pixels(4, 4, 3)), "in.jpg")
    picture = read_picture(path)
    assert output_format_for(picture, ".JPG") == ("JPEG", ".JPG")
    from dataclasses import replace

    with_alpha = replace(picture, alpha=torch.ones(1, 1, 4, 4))
    assert output_format_for(with_alpha, ".jpg") == ("PNG", ".png")
    gif = read_picture(saved(tmp_path, Image.fromarray(pixels(4, 4, 3)), "in.gif"))
    assert output_format_for(gif, ".gif") == ("PNG", ".png")


def test_sizes_no_format_holds_are_refused():
    check_format_size("PNG", 100_000, 1)
    with pytest.raises(OutputError, match="16383"):
        check_format_size("WEBP", 16_384, 1)
    with pytest.raises(OutputError, match="65535"):
        check_format_size("JPEG", 1, 65_536)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    import os

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_picture(tmp_path / "out.png", Picture(photo(4, 4)), kind="PNG")
    assert list(tmp_path.iterdir()) == []


def test_missing_and_unreadable_files_are_told_apart(tmp_path):
    with pytest.raises(NotFoundError):
        read_picture(tmp_path / "nosuch.png")
    with pytest.raises(InputError):
        read_picture(tmp_path)


@pytest.mark.parametrize("name", ["a b.png", "☃.png", "new\nline.png", "x" * 251 + ".png"])
def test_unusual_names_work(tmp_path, name):
    path = tmp_path / name
    write_picture(path, Picture(photo(3, 3)), kind="PNG")
    assert read_picture(path).rgb.shape == (1, 3, 3, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".gif"])
def test_mutated_files_are_read_or_refused_and_nothing_else(tmp_path, suffix, capfd):
    path = saved(tmp_path, Image.fromarray(pixels(24, 24, 3)), f"in{suffix}")
    original, rng = path.read_bytes(), random.Random(suffix)
    refused = 0
    for _ in range(50):
        data = bytearray(original)
        for _ in range(rng.choice([1, 4, 30])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data)) if rng.random() < 0.3 else None])
        with contextlib.suppress(InputError):
            read_picture(path)
            continue
        refused += 1
    assert refused > 0
    assert capfd.readouterr().err == ""
