"""A streamed picture is the one that memory would hold: pixels, metadata, refusals."""

import io
import json

import numpy as np
import pytest
from fakes import save_photo
from PIL import Image, ImageCms

from yoda_cli.devices import memory
from yoda_cli.images import made_by_yoda, strips

pytest.importorskip("pyvips")
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True)
def little_at_a_time(monkeypatch):
    monkeypatch.setattr(memory, "TO_DISK", 1)
    monkeypatch.setattr(strips, "TOUCHED", 10_000)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("grey", [False, True])
def test_the_pixels_and_metadata_are_those_of_the_picture_in_memory(
    upscale, tmp_path, suffix, grey
):
    image = Image.open(save_photo(tmp_path / "photo.png", 150, 170))
    exif = Image.Exif()
    exif[0x010E] = "a place"
    image = image.convert("L") if grey else image
    kept = {} if grey else {"icc_profile": ICC}
    image.save(tmp_path / "in.png", exif=exif, dpi=(300, 300), **kept)
    common = [tmp_path / "in.png", "--block", "256", "--json", "-q"]
    still = upscale(*common, "-o", tmp_path / f"still.{suffix}")
    streamed = upscale(*common, "-o", tmp_path / f"streamed.{suffix}", "--stream")
    assert streamed.code == 0, streamed.err
    assert "streamed" in json.loads(streamed.out)["notices"]
    assert json.loads(streamed.out)["calls"] == json.loads(still.out)["calls"]
    with (
        Image.open(tmp_path / f"still.{suffix}") as a,
        Image.open(tmp_path / f"streamed.{suffix}") as b,
    ):
        assert (a.mode, a.size) == (b.mode, b.size)
        difference = np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max()
        assert difference <= (8 if suffix == "jpg" else 0)
        notices = " ".join(json.loads(streamed.out)["notices"])
        assert ("EXIF: dropped" in notices) == (suffix == "tif")
        assert suffix == "tif" or b.getexif()[0x010E] == "a place"
        assert (b.info.get("icc_profile") or b"") == (a.info.get("icc_profile") or b"")
        assert b.info["dpi"] == pytest.approx((300, 300), abs=1)
    assert made_by_yoda(tmp_path / f"streamed.{suffix}")
    assert {p.suffix for p in tmp_path.iterdir()} == {".png", f".{suffix}"}


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_turned_picture_is_streamed_upright(upscale, tmp_path, suffix):
    source, exif = tmp_path / f"in.{suffix}", Image.Exif()
    exif[0x0112] = 6
    Image.open(save_photo(tmp_path / "photo.png", 80, 150)).save(source, exif=exif)
    for name, option in (("still", "--no-stream"), ("streamed", "--stream")):
        done = upscale(source, "--block", "256", option, "-o", tmp_path / f"{name}.png")
        assert done.code == 0, done.err
    still, streamed = (Image.open(tmp_path / f"{name}.png") for name in ("still", "streamed"))
    assert np.array_equal(np.asarray(still), np.asarray(streamed))
    assert streamed.size == (80 * 4, 150 * 4)


def test_a_dry_run_tells_of_the_blocks_that_are_streamed(upscale, tmp_path):
    source = save_photo(tmp_path / "in.png", 200, 300)
    common = [source, "--stream", "--json", "-o", tmp_path / "out.png"]
    planned = json.loads(upscale(*common, "--dry-run").out)
    made = json.loads(upscale(*common, "-q").out)
    assert planned["blocks"] == made["blocks"] > 1
    assert planned["dense_calls"] == made["dense_calls"]


def test_a_disk_without_room_for_the_source_ends_in_one_line(upscale, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory, "_reserve", full)
    source = save_photo(tmp_path / "in.png", 40, 40)
    done = upscale(source, "--stream")
    assert done.code == 7
    assert "No space left" in done.err
    assert list(tmp_path.iterdir()) == [source]


def test_a_streamed_tiff_may_be_larger_than_others(upscale, tmp_path, monkeypatch):
    from yoda_cli.images import formats

    source = save_photo(tmp_path / "in.png", 40, 40)
    monkeypatch.setattr(formats, "FOUR_GIB", 100_000)
    still = upscale(source, "-o", tmp_path / "still.tif", "--no-stream")
    streamed = upscale(source, "-o", tmp_path / "streamed.tif", "--stream")
    assert still.code == 7
    assert "4 GiB" in still.err
    assert streamed.code == 0, streamed.err
    assert (tmp_path / "streamed.tif").read_bytes()[2] == 43  # BigTIFF


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        (
            "out.tmp: write error\nsystem error: No space left\nother\n",
            "in_tiny_x4.png: No space left",
        ),
        ("too\nodd\n", "in_tiny_x4.png: unable to call pngsave: too odd"),
    ],
)
def test_what_the_writer_says_is_passed_on(upscale, tmp_path, monkeypatch, detail, said):
    import pyvips

    def broken(*arguments, **options):
        raise pyvips.Error("unable to call pngsave", detail)

    monkeypatch.setattr(pyvips.Image, "pngsave", broken, raising=False)
    source = save_photo(tmp_path / "in.png", 40, 40)
    done = upscale(source, "--stream")
    assert done.code == 7
    assert done.err.strip().endswith(said)
    assert list(tmp_path.iterdir()) == [source]


def test_pipes_are_not_streamed(upscale, tmp_path, monkeypatch):
    source = save_photo(tmp_path / "in.png", 40, 40)
    pipe = io.TextIOWrapper(io.BytesIO(source.read_bytes()))
    monkeypatch.setattr("sys.stdin", pipe)
    to_pipe = upscale(source, "-o", "-", "--stream")
    from_pipe = upscale("-", "-o", tmp_path / "out.png", "--stream")
    for done in (to_pipe, from_pipe):
        assert done.code == 5
        assert "a file with a still picture" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]


def test_a_streamed_run_teaches_the_pace(upscale, tmp_path, monkeypatch):
    from yoda_cli.upscaling import streaming

    learnt = []
    monkeypatch.setattr(streaming, "learn", lambda *arguments: learnt.append(arguments[1:]))
    source = save_photo(tmp_path / "in.png", 40, 40)
    done = upscale(source, "-o", tmp_path / "out.png", "--stream", "--json", "-q")
    said = json.loads(done.out)
    ((forecast, seconds),) = learnt
    assert forecast == pytest.approx(said["forecast_seconds"], abs=1e-3)
    assert seconds == pytest.approx(said["seconds"], abs=1e-3)


def test_what_cannot_be_streamed_says_so(upscale, tmp_path):
    Image.new("RGBA", (40, 40), (1, 2, 3, 4)).save(tmp_path / "in.png")
    done = upscale(tmp_path / "in.png", "--stream")
    assert done.code == 5
    assert "cannot be streamed" in done.err


def test_a_failure_while_streaming_leaves_nothing(upscale, tmp_path, monkeypatch):
    import yoda_cli.upscaling.streaming

    def broken(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(yoda_cli.upscaling.streaming, "encode", broken)
    save_photo(tmp_path / "in.png", 40, 40)
    done = upscale(tmp_path / "in.png", "--stream")
    assert done.code == 7
    assert "No space left" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]
