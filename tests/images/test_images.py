"""Pictures through files: what is kept, what is converted, what is said."""

import io
import itertools
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
import torch
from fakes import photo, read_frames
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from yoda_cli.errors import InputError, OutputError
from yoda_cli.images import (
    Animation,
    Metadata,
    Picture,
    check_format_size,
    encode_frames,
    encode_picture,
    fill_transparent,
    format_of,
    losses,
    made_by_yoda,
    output_format_for,
    peek,
    read_picture,
    read_provenance,
    write_picture,
)
from yoda_cli.images.resize import as_floats

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="x"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
MAKE, ORIENTATION, EXPOSURE, MAKER_NOTE, PIXEL_WIDTH = 0x010F, 0x0112, 0x829A, 0x927C, 0xA002
SIZES = [(1, 1), (7, 33), (1, 500)]
RNG = np.random.default_rng(0)


def pixels(*shape, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def file_of(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def array_of(picture, bits=8):
    """(H, W, C) integers of a picture, alpha last."""
    planes = [picture.rgb] if picture.alpha is None else [picture.rgb, picture.alpha]
    values = torch.cat(planes, dim=1)[0].permute(1, 2, 0).double().numpy()
    return np.rint(values * (2**bits - 1)).astype(np.int64)


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_16(data, *before_pixels, interlaced=False):
    """A 16-bit PNG written here, so that no library decides what is in it."""
    height, width, channels = data.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, interlaced)
    passes = [data]
    if interlaced:
        starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        starts += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        passes = [data[top::down, left::right] for top, left, down, right in starts]
    rows = b"".join(
        b"\0" + row.astype(">u2").tobytes() for part in passes for row in part if row.size
    )
    body = [chunk(b"IHDR", header), *before_pixels, chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b"")


def tiff_of(data, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, data, **options)
    return out.getvalue()


def exif_of(**first):
    exif = Image.Exif()
    exif[MAKE] = "maker"
    for tag, value in first.items():
        exif[int(tag.removeprefix("tag_"))] = value
    inner = exif.get_ifd(0x8769)
    inner[EXPOSURE], inner[MAKER_NOTE], inner[PIXEL_WIDTH] = 0.25, b"opaque\0bytes", 5
    return exif


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_eight_bit_pictures_survive_reading_and_writing(size, kind):
    data = pixels(*size, 3)
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read_picture(file_of(Image.fromarray(data), kind, **options))
    assert picture.metadata.kind == kind
    assert picture.rgb.shape == (1, 3, *size)
    assert picture.notices == ()
    for written in (kind, "PNG"):
        assert np.array_equal(opened(encode_picture(picture, kind=written)).convert("RGB"), data)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "WEBP"])
def test_lossy_formats_stay_close(size, kind):
    picture = Picture(photo(*size))
    back = read_picture(encode_picture(picture, kind=kind))
    assert back.rgb.shape == picture.rgb.shape
    assert (back.rgb - picture.rgb).abs().mean() < 0.03


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_stay_sixteen_bits(size, kind, channels):
    data = pixels(*size, channels, dtype=np.uint16)
    picture = read_picture(png_16(data))
    assert picture.bits == 16
    assert picture.is_grey == (channels < 3)
    assert (picture.alpha is not None) == (channels in (2, 4))
    wide = data if channels > 2 else np.concatenate([data[..., :1]] * 3 + [data[..., 1:]], axis=2)
    assert np.array_equal(array_of(picture, 16), wide)
    written = encode_picture(picture, kind=kind)
    again = read_picture(written)
    assert again.bits == 16
    assert torch.equal(again.rgb, picture.rgb)
    if channels in (2, 4):
        assert torch.equal(again.alpha, picture.alpha)
    if kind == "TIFF":
        assert np.array_equal(
            tifffile.imread(io.BytesIO(written)).ravel(), (wide if channels == 2 else data).ravel()
        )
    elif channels != 2:
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
        decoded = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(decoded.reshape(data.shape), data[..., order])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("limit", [1, 500])
def test_large_files_are_written_in_parts_that_fit_together(monkeypatch, bits, limit):
    monkeypatch.setattr("yoda_cli.images.tiff.STRIP_BYTES", limit)
    picture = replace(read_picture(png_16(pixels(23, 31, 4, dtype=np.uint16))), bits=bits)
    for kind in ("PNG", "TIFF"):
        back = read_picture(encode_picture(picture, kind=kind))
        assert (back.rgb - picture.rgb).abs().max() <= 0.51 / (2**bits - 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_interlaced_sixteen_bit_files_are_read(channels):
    for size in [(1, 1), (3, 2), (9, 13)]:
        data = pixels(*size, channels, dtype=np.uint16)
        plain, woven = (read_picture(png_16(data, interlaced=i)) for i in (False, True))
        assert torch.equal(plain.rgb, woven.rgb)


def test_bytes_beyond_the_last_row_of_a_sixteen_bit_file_disturb_nobody(capfd):
    data = pixels(5, 7, 3, dtype=np.uint16)
    whole = png_16(data)
    start = whole.index(b"IDAT") - 4
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in data)
    longer = chunk(b"IDAT", zlib.compress(rows + b"x" * 99))
    odd = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"junk")) + chunk(b"sBIT", b"12")
    picture = read_picture(whole[:33] + odd + longer + chunk(b"IEND", b""))
    assert start > 0
    assert np.array_equal(array_of(picture, 16), data)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_a_sixteen_bit_file_is_alpha(channels):
    data = pixels(5, 7, channels, dtype=np.uint16)
    data[1, 2] = data[3, 4]
    picture = read_picture(png_16(data, chunk(b"tRNS", data[1, 2].astype(">u2").tobytes())))
    assert picture.bits == 16
    expected = np.ones((5, 7))
    expected[1, 2] = expected[3, 4] = 0
    assert np.array_equal(picture.alpha[0, 0].numpy(), expected)


def test_sixteen_bit_tiffs_of_other_makers_are_read_at_full_depth():
    data = pixels(6, 5, 3, dtype=np.uint16)
    files = [
        tiff_of(data, photometric="rgb"),
        tiff_of(data, photometric="rgb", byteorder=">"),
        tiff_of(data, photometric="rgb", bigtiff=True),
        tiff_of(data, photometric="rgb", compression="deflate", predictor=True),
        tiff_of(np.pad(data, [(0, 10), (0, 11), (0, 0)]), photometric="rgb", tile=(16, 16)),
    ]
    for file in files:
        picture = read_picture(file)
        assert picture.bits == 16
        assert np.array_equal(array_of(picture, 16)[:6, :5], data)
    grey = tiff_of(data[..., 0], photometric="miniswhite")
    assert np.array_equal(array_of(read_picture(grey), 16)[..., 0], 65535 - data[..., 0])
    unit = tiff_of(data[..., 0].astype(np.float32) / np.float32(65535), photometric="minisblack")
    assert np.array_equal(array_of(read_picture(unit), 16)[..., 0], data[..., 0])


def test_premultiplied_sixteen_bit_colours_are_divided():
    data = np.zeros((2, 2, 4), np.uint16)
    data[0] = [10_000, 20_000, 0, 40_000]
    file = tiff_of(data, photometric="rgb", extrasamples=["assocalpha"])
    picture = read_picture(file)
    assert picture.rgb[0, :, 0, 0].tolist() == pytest.approx([0.25, 0.5, 0])
    assert picture.rgb[0, :, 1, 0].tolist() == [0, 0, 0]


def test_depth_that_is_lost_is_said_and_values_without_a_scale_are_refused():
    deep_cmyk = pixels(6, 5, 4, dtype=np.uint16)
    picture = read_picture(tiff_of(deep_cmyk, photometric="separated"))
    assert picture.bits == 8
    assert "16 bits a channel were read as 8" in picture.notices
    for data in (np.full((2, 2), 200, np.float32), np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(InputError, match="must lie in 0 … 1"):
            read_picture(tiff_of(data, photometric="minisblack"))
    planes = pixels(3, 6, 5, dtype=np.uint16)
    with pytest.raises(InputError, match="save it interleaved"):
        read_picture(tiff_of(planes, photometric="rgb", planarconfig="separate"))
    with pytest.raises(InputError, match="convert it to 16 bits"):
        read_picture(tiff_of(np.ones((2, 2), np.int32), photometric="minisblack"))


@pytest.mark.skipif(not cv2.haveImageWriter("a.avif"), reason="this OpenCV writes no AVIF")
def test_ten_bit_avif_says_that_it_was_read_at_eight():
    ten = cv2.imencode(
        ".avif", pixels(16, 16, 3, dtype=np.uint16) >> 6, [cv2.IMWRITE_AVIF_DEPTH, 10]
    )[1]
    assert read_picture(ten.tobytes()).notices == ("10 bits a channel were read as 8",)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "CMYK", "YCbCr"]
)
@pytest.mark.parametrize("size", SIZES)
def test_every_mode_is_read_as_what_it_shows(mode, size):
    image = Image.fromarray(pixels(*size, 3))
    if mode == "I;16":
        image = Image.fromarray(pixels(*size, dtype=np.uint16))
    elif mode in ("RGBA", "LA"):
        image = Image.fromarray(pixels(*size, len(mode)))
    else:
        image = image.convert(mode)
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG", "PA": "TIFF"}.get(mode, "PNG")
    picture = read_picture(file_of(image, kind))
    assert picture.rgb.shape == (1, 3, *size)
    assert picture.alpha is None or mode in ("LA", "RGBA", "PA")
    assert bool(picture.notices) == (mode == "CMYK")
    written = opened(encode_picture(picture, kind="PNG"))
    if mode in ("L", "LA", "RGB", "RGBA", "I;16"):
        assert written.mode == mode
        assert np.array_equal(np.asarray(written), np.asarray(image))
    elif mode == "1":
        assert np.array_equal(np.asarray(written), np.asarray(image) * 255)
    elif mode in ("P", "PA"):
        assert np.array_equal(written.convert("RGB"), image.convert("RGB"))


def test_transparent_palettes_and_colours_have_alpha():
    image = Image.fromarray(pixels(8, 8) % 4).convert("P")
    for transparency in (1, bytes([255, 0, 128, 255])):
        picture = read_picture(file_of(image, "PNG", transparency=transparency))
        index = np.asarray(image)
        assert np.array_equal(picture.alpha[0, 0].numpy() == 0, index == 1)
    grey = Image.fromarray(pixels(8, 8) % 3)
    picture = read_picture(file_of(grey, "PNG", transparency=2))
    assert picture.is_grey
    assert np.array_equal(picture.alpha[0, 0].numpy() == 0, np.asarray(grey) == 2)
    colour = Image.fromarray(pixels(8, 8, 3) % 2)
    picture = read_picture(file_of(colour, "PNG", transparency=(1, 1, 1)))
    hidden = (np.asarray(colour) == 1).all(2)
    assert np.array_equal(picture.alpha[0, 0].numpy() == 0, hidden)


def cmyk_profile():
    """A press whose every full ink is mid grey: 16 grid points, L* = 50 but for bare paper."""
    grid = [[255, 128, 128]] + [[128, 128, 128]] * 15
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *np.eye(3, dtype=int).flat)
    table = (
        table.replace(b"\0\0\0\1", b"\0\1\0\0")
        + ramp * 4
        + bytes(itertools.chain(*grid))
        + ramp * 3
    )
    text = b"text\0\0\0\0none\0\0\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    desc = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)
    tags, body = [], b""
    start = 128 + 4 + 12 * 4
    for name, data in ((b"desc", desc), (b"cprt", text), (b"wtpt", white), (b"A2B0", table)):
        padded = data + b"\0" * (-len(data) % 4)
        tags.append(name + struct.pack(">II", start + len(body), len(data)))
        body += padded
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab "
    )
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D) + bytes(48)
    return head + struct.pack(">I", 4) + b"".join(tags) + body


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile_where_it_has_one(kind):
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    by_profile = read_picture(file_of(image, kind, icc_profile=cmyk_profile()))
    assert by_profile.notices == ("CMYK was converted to sRGB by the picture's colour profile",)
    assert np.ptp(array_of(by_profile), axis=2).max() <= 2  # grey, as the profile says
    for options in ({}, {"icc_profile": b"damaged"}):
        plain = read_picture(file_of(image, kind, **options))
        assert plain.notices == ("CMYK without a colour profile was converted to RGB",)
        assert array_of(plain)[0, 0].tolist() == pytest.approx([0, 255, 255], abs=2)
    for picture in (by_profile, plain):
        assert picture.metadata.icc == b""
        assert opened(encode_picture(picture, kind=kind)).mode == "RGB"


def test_grey_stays_grey_and_a_colour_file_of_greys_stays_without_colour():
    data = pixels(9, 7)
    stored_grey = read_picture(file_of(Image.fromarray(data), "PNG"))
    stored_rgb = read_picture(file_of(Image.fromarray(np.stack([data] * 3, axis=2)), "PNG"))
    assert stored_grey.is_grey
    assert stored_rgb.is_grey
    tinted = (stored_grey.rgb + torch.tensor([0.1, -0.1, 0.0])[:, None, None]).clamp(0, 1)
    for kind in ("PNG", "JPEG", "TIFF", "BMP"):
        assert opened(encode_picture(replace(stored_grey, rgb=tinted), kind=kind)).mode == "L"
    wide = np.asarray(opened(encode_picture(replace(stored_rgb, rgb=tinted), kind="PNG")))
    assert wide.shape == (9, 7, 3)
    assert (wide == wide[..., :1]).all()
    for kind in ("WEBP", "AVIF"):
        lossy = np.asarray(opened(encode_picture(stored_grey, kind=kind)).convert("RGB"), int)
        assert np.ptp(lossy, axis=2).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
def test_bytes_are_the_same_picture(mode, tmp_path):
    values = np.random.default_rng(3).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    if mode == "I;16":
        Image.fromarray(values[..., 0].astype(np.uint16) * 257).save(tmp_path / "a.png")
    else:
        Image.fromarray(values).convert(mode).save(tmp_path / "a.png")
    plain = read_picture(tmp_path / "a.png")
    small = read_picture(tmp_path / "a.png", as_bytes=True)
    assert small.rgb.dtype == (torch.float32 if mode == "I;16" else torch.uint8)
    assert torch.equal(as_floats(small.rgb), plain.rgb)
    assert (small.is_grey, small.bits) == (plain.is_grey, plain.bits)
    assert (small.alpha is None) == (plain.alpha is None)
    if plain.alpha is not None:
        assert torch.equal(small.alpha, plain.alpha)


def test_values_are_clamped_and_rounded_half_up():
    values = torch.tensor([-0.5, 127.5 / 255, 127.4 / 255, 1.5]).reshape(1, 1, 1, 4)
    picture = Picture(values.expand(1, 3, 1, 4), is_grey=True)
    assert np.asarray(opened(encode_picture(picture, kind="PNG"))).tolist() == [[0, 128, 127, 255]]
    with pytest.raises(ValueError, match="not finite"):
        encode_picture(Picture(torch.full((1, 3, 2, 2), torch.nan)), kind="PNG")


def test_encoding_leaves_the_picture_as_it_is():
    picture = Picture(photo(6, 7), alpha=torch.full((1, 1, 6, 7), 0.5))
    before = picture.rgb.clone(), picture.alpha.clone()
    for kind in ("PNG", "JPEG", "TIFF"):
        encode_picture(picture, kind=kind)
    assert torch.equal(picture.rgb, before[0])
    assert torch.equal(picture.alpha, before[1])


def test_jpeg_and_bmp_are_flattened_onto_white_and_say_so():
    transparent = Picture(torch.zeros(1, 3, 4, 4), alpha=torch.zeros(1, 1, 4, 4))
    for kind in ("JPEG", "BMP"):
        assert np.asarray(opened(encode_picture(transparent, kind=kind))).min() > 250
        assert losses(transparent, kind) == (f"{kind} has no transparency: flattened onto white",)
    opaque = replace(transparent, alpha=torch.ones(1, 1, 4, 4))
    assert losses(opaque, "JPEG") == ()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_alpha_survives(kind):
    alpha = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    back = read_picture(encode_picture(Picture(photo(8, 8), alpha=alpha), kind=kind))
    assert (back.alpha - alpha).abs().max() < 0.01


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_colours_under_transparency_survive_a_lossless_format(kind):
    picture = Picture(photo(6, 6), alpha=torch.zeros(1, 1, 6, 6))
    picture = replace(picture, metadata=Metadata(is_lossless=True))
    back = read_picture(encode_picture(picture, kind=kind))
    assert (back.rgb - picture.rgb).abs().max() <= 0.51 / 255


def test_hidden_colours_do_not_bleed_into_edges():
    rgb = torch.zeros(1, 3, 40, 40)
    rgb[:, 0, :, 20:] = 1.0
    alpha = torch.zeros(1, 1, 40, 40)
    alpha[..., 20:] = 1.0
    filled = fill_transparent(rgb, alpha)
    assert torch.equal(filled[..., 20:], rgb[..., 20:])
    assert torch.allclose(filled[:, 0], torch.ones(1, 40, 40))
    assert fill_transparent(rgb, torch.zeros(1, 1, 40, 40)).abs().max() == 0


@pytest.mark.parametrize("size", [*SIZES, (2, 1), (129, 64)])
def test_one_visible_pixel_colours_everything_hidden(size):
    rgb, alpha = photo(*size), torch.zeros(1, 1, *size)
    alpha[..., -1, 0] = 0.5
    filled = fill_transparent(rgb, alpha)
    assert torch.allclose(filled, rgb[..., -1:, :1].expand_as(rgb), atol=1e-5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("size", [(8, 16), (1, 1), (3, 1)])
def test_the_orientation_is_applied_and_reset(kind, orientation, size):
    exif = exif_of(tag_274=orientation)
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100}
    file = file_of(Image.fromarray(pixels(*size, 3)), kind, exif=exif, dpi=(100, 200), **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))
    picture = read_picture(file)
    assert np.array_equal(array_of(picture), expected)
    out = opened(encode_picture(picture, kind=kind))
    assert out.getexif().get(ORIENTATION, 1) == 1
    assert out.getexif()[MAKE] == "maker"
    assert out.size == (expected.shape[1], expected.shape[0])
    if kind in ("PNG", "JPEG", "TIFF"):
        dpi = (100, 200) if orientation < 5 else (200, 100)
        assert picture.metadata.dpi == pytest.approx(dpi, abs=0.1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bigtiff", [False, True])
def test_the_orientation_of_sixteen_bit_pictures_is_applied_too(orientation, bigtiff):
    data = pixels(4, 6, 3, dtype=np.uint16)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = ImageOps.exif_transpose(
        opened(
            file_of(Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6)), "PNG", exif=exif)
        )
    )
    expected = data.reshape(24, 3)[np.asarray(turned)]
    png = png_16(data, chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    tags = [(ORIENTATION, "H", 1, orientation, True)]
    for file in (png, tiff_of(data, photometric="rgb", extratags=tags, bigtiff=bigtiff)):
        picture = read_picture(file)
        assert picture.bits == 16
        assert np.array_equal(array_of(picture, 16), expected)
        assert opened(encode_picture(picture, kind="TIFF")).getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_an_orientation_said_in_xmp_only_is_applied_once(kind):
    xmp = XMP.replace(b'dc:format="x"', b'dc:format="x" tiff:Orientation="6"')
    data = pixels(4, 6, 3)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    options = {"PNG": {"pnginfo": info}, "WEBP": {"xmp": xmp, "lossless": True}}
    file = file_of(Image.fromarray(data), kind, **options.get(kind, {"xmp": xmp, "quality": 100}))
    if kind == "TIFF":
        tags = [(700, "B", len(xmp), xmp, True)]
        file = tiff_of(data, photometric="rgb", extratags=tags)
    picture = read_picture(file)
    assert picture.rgb.shape == (1, 3, 6, 4)
    if kind != "JPEG":
        assert np.array_equal(array_of(picture), data.transpose(1, 0, 2)[:, ::-1])
    again = read_picture(encode_picture(picture, kind=kind))
    assert again.rgb.shape == (1, 3, 6, 4)
    assert b'tiff:Orientation="1"' in again.metadata.xmp


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("source", "target"),
    list(itertools.product(["PNG", "JPEG", "WEBP", "TIFF", "AVIF"], repeat=2)),
)
def test_everything_beside_the_pixels_survives_between_formats(source, target, bits):
    image = Image.fromarray(pixels(5, 5, 3))
    whole = Metadata(
        kind=source, exif=exif_of().tobytes(), icc=ICC, dpi=(300.0, 150.0), xmp=XMP, text={}
    )
    seed = replace(read_picture(file_of(image, "PNG")), metadata=whole, bits=bits)
    picture = read_picture(encode_picture(seed, kind=source))
    assert picture.metadata.kind == source
    assert losses(picture, target) == (
        (f"{target} holds 8 bits a channel: rounded from 16",)
        if picture.bits == 16 and target not in ("PNG", "TIFF")
        else ()
    )
    out = opened(encode_picture(picture, kind=target, provenance={"model": "m"}))
    assert out.info["icc_profile"] == ICC
    exif = out.getexif()
    assert exif[MAKE] == "maker"
    assert exif.get_ifd(0x8769)[EXPOSURE] == pytest.approx(0.25)
    assert exif.get_ifd(0x8769)[MAKER_NOTE] == b"opaque\0bytes"
    back = read_picture(encode_picture(picture, kind=target)).metadata
    assert back.dpi == pytest.approx((300, 150), abs=0.1)
    assert back.xmp == XMP


def test_exif_is_kept_to_the_byte_but_for_orientation_and_size():
    exif = exif_of(tag_274=1).tobytes()
    picture = read_picture(file_of(Image.fromarray(pixels(3, 5, 3)), "JPEG", exif=exif))
    assert opened(encode_picture(picture, kind="JPEG")).info["exif"] == exif
    larger = replace(picture, rgb=photo(12, 20))
    out = opened(encode_picture(larger, kind="JPEG")).getexif()
    assert out.get_ifd(0x8769)[PIXEL_WIDTH] == 20


def test_damaged_exif_costs_a_notice_and_not_the_picture():
    for exif in (b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0II*\0\x08\0\0\0\xff"):
        picture = read_picture(file_of(Image.fromarray(pixels(3, 5, 3)), "JPEG", exif=exif))
        assert picture.notices == ("damaged EXIF was dropped",)
        assert picture.metadata.exif == b""


def test_text_and_comments_survive():
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a lake")
    info.add_itxt("Author", "Zoë 🎈", "de", "Autor")
    info.add_text("Long", "x" * 5000, zip=True)
    info.add_text("yoda", "old")
    picture = read_picture(file_of(Image.fromarray(pixels(3, 3, 3)), "PNG", pnginfo=info))
    out = opened(encode_picture(picture, kind="PNG"))
    assert out.text == {"Title": "a lake", "Author": "Zoë 🎈", "Long": "x" * 5000}
    assert out.text["Author"].lang == "de"
    assert losses(picture, "JPEG") == ("JPEG cannot hold the picture's PNG text: dropped",)
    for kind in ("JPEG", "GIF"):
        said = read_picture(file_of(Image.fromarray(pixels(3, 3, 3)), kind, comment=b"hello"))
        assert opened(encode_picture(said, kind="JPEG")).info["comment"] == b"hello"
        assert opened(encode_picture(said, kind="PNG")).text == {"Comment": "hello"}


def test_stripping_leaves_only_the_colour_profile():
    metadata = Metadata(
        exif=exif_of().tobytes(), icc=ICC, dpi=(300, 300), xmp=XMP, text={"Title": "t"}
    )
    picture = Picture(photo(4, 4), metadata=metadata)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        data = encode_picture(
            picture, kind=kind, strip_metadata=True, provenance={"model": "secret"}
        )
        back = read_picture(data).metadata
        assert back == Metadata(kind=kind, mode="RGB", icc=ICC, dpi=back.dpi)
        assert back.dpi in (None, (1.0, 1.0))
        assert b"secret" not in data
        assert not made_by_yoda(data)


def test_what_a_jpeg_segment_cannot_hold_is_dropped_and_said():
    metadata = Metadata(exif=exif_of(tag_270="x" * 70_000).tobytes(), xmp=XMP + b" " * 70_000)
    picture = Picture(photo(4, 4), metadata=metadata)
    assert losses(picture, "JPEG") == (
        "JPEG cannot hold the picture's EXIF: dropped",
        "JPEG cannot hold the picture's XMP: dropped",
    )
    back = read_picture(encode_picture(picture, kind="JPEG", provenance={"model": "m"})).metadata
    assert (back.exif, back.xmp) == (b"", b"")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF"])
@pytest.mark.parametrize("xmp", [b"", XMP])
def test_yoda_knows_its_own_work(tmp_path, kind, xmp, bits):
    said = {"software": "yoda 1", "model": 'a "b" <c> & ü', "settings": '{"scale": 4}'}
    picture = Picture(photo(4, 4), bits=bits, metadata=Metadata(xmp=xmp))
    path = tmp_path / "picture"
    write_picture(path, picture, kind=kind)
    assert not made_by_yoda(path)
    write_picture(path, picture, kind=kind, provenance=said)
    assert made_by_yoda(path)
    assert read_provenance(path) == said
    again = read_picture(path)
    assert again.metadata.xmp == (xmp if kind != "GIF" else b"")
    assert again.metadata.text == {}
    assert again.metadata.comment == b""
    twice = encode_picture(again, kind=kind, provenance={"model": "second"})
    assert read_provenance(twice) == {"model": "second"}


def test_what_yoda_did_not_make_is_not_its_own(tmp_path):
    (tmp_path / "text.png").write_text("yoda")
    info = PngImagePlugin.PngInfo()
    info.add_text("yoda", "[1")
    fake = file_of(Image.fromarray(pixels(3, 3, 3)), "PNG", pnginfo=info)
    assert not made_by_yoda(tmp_path / "nosuch.png")
    assert not made_by_yoda(tmp_path)
    assert not made_by_yoda(tmp_path / "text.png")
    assert not made_by_yoda(fake)


def test_the_same_picture_gives_the_same_bytes():
    picture = Picture(photo(9, 7), metadata=Metadata(icc=ICC, exif=exif_of().tobytes(), xmp=XMP))
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        first, second = (encode_picture(picture, kind=kind, provenance={"a": "b"}) for _ in "12")
        assert first == second


def test_jpeg_keeps_full_colour_resolution():
    out = opened(encode_picture(Picture(photo(16, 16)), kind="JPEG"))
    assert out.layer[0][1:3] == out.layer[1][1:3]


def test_lossless_webp_stays_lossless_unless_a_quality_is_asked_for():
    data = pixels(9, 9, 3)
    lossless = read_picture(file_of(Image.fromarray(data), "WEBP", lossless=True, icc_profile=ICC))
    lossy = read_picture(file_of(Image.fromarray(data), "WEBP"))
    assert np.array_equal(opened(encode_picture(lossless, kind="WEBP")), data)
    assert not np.array_equal(opened(encode_picture(lossless, kind="WEBP", quality=95)), data)
    assert not read_picture(encode_picture(lossy, kind="WEBP")).metadata.is_lossless


def test_the_input_format_is_kept_where_it_can_hold_the_picture():
    header = peek(file_of(Image.fromarray(pixels(4, 4, 3)), "JPEG"))
    assert output_format_for(header, ".JPG") == ("JPEG", ".JPG")
    assert output_format_for(header, ".png") == ("JPEG", ".jpg")
    with_alpha = replace(header, has_alpha=True)
    assert output_format_for(with_alpha, ".jpg") == ("PNG", ".png")
    assert output_format_for(replace(header, bits=16), ".jpg") == ("PNG", ".png")
    gif = peek(file_of(Image.fromarray(pixels(4, 4, 3)), "GIF"))
    assert output_format_for(gif, ".gif") == ("PNG", ".png")
    assert output_format_for(replace(gif, frames=3), ".gif") == ("GIF", ".gif")
    tiff = replace(with_alpha, bits=16, kind="TIFF")
    assert output_format_for(tiff, ".tiff") == ("TIFF", ".tiff")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_a_header_says_what_reading_finds(kind):
    data = file_of(Image.fromarray(pixels(5, 9, 3)), kind)
    header, picture = peek(data), read_picture(data)
    assert (header.kind, header.frames) == (picture.metadata.kind, 1)
    assert (header.height, header.width) == tuple(picture.rgb.shape[-2:])
    assert header.has_alpha == (picture.alpha is not None)
    assert header.bits == picture.bits


def test_a_header_knows_orientation_transparency_depth_and_frames():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = file_of(Image.fromarray(pixels(4, 10, 3)), "JPEG", exif=exif)
    assert (peek(turned).width, peek(turned).height) == (4, 10)
    assert peek(file_of(Image.fromarray(pixels(4, 4, 4)), "PNG")).has_alpha
    assert (
        peek(file_of(Image.fromarray(pixels(4, 4, 3)[..., 0].astype("uint16")), "PNG")).bits == 16
    )
    frames = [Image.fromarray(pixels(4, 4, 3)) for _ in range(3)]
    moving = file_of(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    assert peek(moving).frames == 3


@pytest.mark.parametrize(
    ("kind", "side"), [("WEBP", 16_383), ("JPEG", 65_500), ("AVIF", 32_768), ("GIF", 65_535)]
)
def test_the_largest_side_of_a_format_works_and_one_more_is_refused(kind, side):
    check_format_size(kind, 1, side)
    with pytest.raises(OutputError, match=f"at most {side} pixels a side"):
        check_format_size(kind, side + 1, 1)
    data = encode_picture(Picture(torch.zeros(1, 3, 1, side)), kind=kind)
    assert read_picture(data).rgb.shape[-1] == side


def test_files_that_would_pass_four_gigabytes_are_refused():
    check_format_size("PNG", 100_000, 100_000)
    check_format_size("TIFF", 20_000, 20_000)
    for kind in ("TIFF", "BMP"):
        with pytest.raises(OutputError, match="4 GiB"):
            check_format_size(kind, 40_000, 40_000)


def test_names_ask_for_formats(tmp_path):
    assert format_of(tmp_path / "A.JPEG") == "JPEG"
    assert format_of(tmp_path / "b.avif") == "AVIF"
    with pytest.raises(OutputError, match="no known picture format"):
        format_of(tmp_path / "c.xyz")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "AVIF"])
def test_every_frame_and_its_time_is_kept(kind):
    colours = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
    frames = [Image.new("RGB", (12, 7), c) for c in colours]
    times = [100, 250, 70]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = file_of(
        frames[0], kind, save_all=True, append_images=frames[1:], duration=times, loop=3, **options
    )
    first = read_picture(file)
    assert first.notices == ("animated: only the first frame is used",)
    for data in (file, encode_frames(read_frames(file), kind=kind, provenance={"model": "m"})):
        animation = read_frames(data)
        assert animation.milliseconds == tuple(times)
        assert kind == "AVIF" or animation.plays == 3
        for frame, colour in zip(animation.frames, colours, strict=True):
            assert frame.rgb.shape == (1, 3, 7, 12)
            assert np.abs(array_of(frame) - colour).max() <= 3
    assert made_by_yoda(data)


def test_transparent_frames_stay_transparent():
    alpha = torch.zeros(1, 1, 6, 6)
    alpha[..., 3:] = 1
    still = Picture(photo(6, 6), alpha=alpha)
    flipped = replace(still, alpha=alpha.flip(-1))
    for kind in ("PNG", "WEBP", "GIF"):
        data = encode_frames(Animation((still, flipped), (40.0, 40.0)), kind=kind)
        back = read_frames(data)
        assert torch.equal(back.frames[0].alpha, alpha)
        assert torch.equal(back.frames[1].alpha, alpha.flip(-1))
        assert back.plays == 0


def test_a_still_is_an_animation_of_one_frame_and_jpeg_holds_none():
    animation = read_frames(file_of(Image.fromarray(pixels(4, 5, 3)), "JPEG"))
    assert len(animation.frames) == 1
    with pytest.raises(OutputError, match="holds no animation"):
        encode_frames(animation, kind="JPEG")


def test_further_pictures_in_a_file_are_said_to_be_dropped():
    pages = [Image.fromarray(pixels(4, 5, 3)) for _ in range(2)]
    tiff = read_picture(file_of(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert tiff.notices == ("several pages: only the first is used",)
    jpeg = read_picture(file_of(pages[0], "MPO", save_all=True, append_images=pages[1:]))
    assert jpeg.metadata.kind == "JPEG"
    assert "previews" in jpeg.notices[0]
