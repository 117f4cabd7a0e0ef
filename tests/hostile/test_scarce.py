"""Memory that runs out inside a decoder or an encoder is said as that, whatever those say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from broken import animation, cut_jpeg, noise, saved
from PIL import Image

from yoda_cli.errors import DeviceError, InputError, OutputError
from yoda_cli.images import MAX_PIXELS, encode_picture, opening, read_picture, scarcity, writing
from yoda_cli.images.scarcity import lacks_memory

SCRIPT = Path(__file__).with_name("scarce.py")
KINDS = {
    "a.webp": ("WEBP", {}), "lossless.webp": ("WEBP", {"lossless": True}),
    "b.jpg": ("JPEG", {}), "progressive.jpg": ("JPEG", {"progressive": True, "subsampling": 0}),
    "c.png": ("PNG", {}), "d.tif": ("TIFF", {"compression": "tiff_lzw"}), "e.gif": ("GIF", {}),
    "j.tif": ("TIFF", {"compression": "jpeg"}), "f.avif": ("AVIF", {"speed": 10}),
}  # fmt: skip

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit addresses")


def picture(kind, height=40, width=50, **options):
    return saved(Image.fromarray(noise(height, width)), kind, **options)


def outcomes(what, folder):
    """{name: {what happened}} over all limits."""
    done = subprocess.run(
        [sys.executable, SCRIPT, what, folder], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(opening.__file__).parents[2])},
    )  # fmt: skip
    found = {}
    for line in done.stdout.splitlines():
        name, _, said = line.split("\t")
        found.setdefault(name, set()).add(said.partition(" ")[0])
    return found


@linux
@pytest.mark.slow
def test_every_limit_of_memory_is_met_or_said_as_such_while_a_picture_is_read(tmp_path):
    for name, (kind, options) in KINDS.items():
        (tmp_path / name).write_bytes(picture(kind, 500, 600, **options))
    for kind in ("PNG", "WEBP", "GIF", "AVIF"):
        (tmp_path / f"moving.{kind.lower()}").write_bytes(animation(kind, height=300, width=400))
    for name, seen in outcomes("read", tmp_path).items():
        assert seen <= {"done", "DeviceError", "MemoryError"}, name
        assert len(seen) > 1, f"{name}: no limit was met"


@linux
@pytest.mark.slow
def test_every_limit_of_memory_is_met_or_said_as_such_while_a_picture_is_written(tmp_path):
    (tmp_path / "a.png").write_bytes(picture("PNG", 500, 600))
    for kind, seen in outcomes("write", tmp_path).items():
        assert seen <= {"done", "DeviceError", "MemoryError"}, kind
        assert "DeviceError" in seen or "MemoryError" in seen, kind


@linux
def test_a_webp_that_finds_no_room_is_no_damaged_one(tmp_path):
    """ "could not create decoder object" is all that Pillow says of it."""
    (tmp_path / "a.webp").write_bytes(picture("WEBP", 500, 600))
    seen = outcomes("read", tmp_path)["a.webp"]
    assert {"done", "DeviceError"} <= seen <= {"done", "DeviceError", "MemoryError"}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_picture_takes_is_read_from_its_header(monkeypatch, tmp_path, name):
    kind, options = KINDS[name]
    asked = []
    monkeypatch.setattr(scarcity, "can_be_had", asked.append)
    for width in (50, 90):
        (tmp_path / name).write_bytes(picture(kind, 40, width, **options))
        with (tmp_path / name).open("rb") as file:
            lacks_memory(file, MAX_PIXELS)
    assert asked[1] - asked[0] in {each * 40 * 40 for each in (12, 20, 24)}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "AVIF"])
def test_so_is_what_a_frame_of_an_animation_takes(monkeypatch, tmp_path, kind):
    asked = []
    monkeypatch.setattr(scarcity, "can_be_had", asked.append)
    for width in (50, 90):
        (tmp_path / "a").write_bytes(animation(kind, height=40, width=width))
        with (tmp_path / "a").open("rb") as file:
            lacks_memory(file, MAX_PIXELS)
    assert asked[1] > asked[0]


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "GIF"])
def test_a_damaged_picture_is_one_as_long_as_there_is_memory(monkeypatch, kind):
    damaged = picture(kind)[:200]
    with pytest.raises(InputError):
        read_picture(damaged)
    if kind != "GIF":  # its damage is said to be a cut, whatever the memory
        monkeypatch.setattr(scarcity, "can_be_had", lambda size: False)
        with pytest.raises(DeviceError, match="out of memory"):
            read_picture(damaged)


def test_damage_that_is_certain_is_damage_whatever_the_memory(monkeypatch):
    monkeypatch.setattr(scarcity, "can_be_had", lambda size: False)
    with pytest.raises(InputError):
        read_picture(cut_jpeg())


def test_a_module_that_found_no_room_is_no_unknown_format_and_is_tried_again(monkeypatch):
    """Pillow keeps that to itself and calls every such file unknown from then on."""
    real = opening.importlib.import_module

    def crowded(name):
        raise ImportError(f"{name}.so: failed to map segment from shared object")

    opening.load_plugins.cache_clear()
    monkeypatch.setattr(opening.importlib, "import_module", crowded)
    with pytest.raises(DeviceError):
        read_picture(picture("WEBP"))
    monkeypatch.setattr(opening.importlib, "import_module", real)
    assert read_picture(picture("WEBP")).rgb.shape == (1, 3, 40, 50)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_an_encoder_that_finds_no_room_is_a_device_error(monkeypatch, kind):
    def fail(*_, **__):
        raise OSError("encoding error 1")

    whole = read_picture(picture("PNG"))
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError):
        encode_picture(whole, kind=kind)
    monkeypatch.setattr(writing, "can_be_had", lambda size: False)
    with pytest.raises(DeviceError, match="out of memory"):
        encode_picture(whole, kind=kind)


@pytest.mark.parametrize("line", [
    "upscale a.png", "attention a.png", "compare a.png a.png", "metrics a.png a.png",
    "bench --dataset .", "train --data . -o run", "export", "doctor", "weights import a.pth",
])  # fmt: skip
def test_every_command_that_loads_torch_asks_first_whether_there_is_room(
    yoda, tmp_path, monkeypatch, line
):
    """Where there is too little, libraries end the process while they are loaded."""

    def refuse():
        raise DeviceError("no room")

    name = line.split()[0]
    monkeypatch.setattr(f"yoda_cli.cli.{name}.check_room", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(picture("PNG"))
    done = yoda(*line.split())
    assert (done.code, done.err) == (6, "yoda: no room\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_size_that_is_never_read_is_no_lack_of_memory():
    """A WebP whose damaged header says 2^24 pixels a side."""
    chunk = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + b"\xff" * 6
    with pytest.raises(InputError):
        read_picture(b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk)
