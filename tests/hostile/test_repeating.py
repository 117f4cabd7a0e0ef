"""A result can be made again: from its report's command, and its settings stand in the file."""

import json
import re
import shlex
from pathlib import Path

import pytest
from commands import finished
from fakes import fake_model, save_photo
from PIL import Image

from yoda_cli.config import UpscaleOptions
from yoda_cli.upscaling.resolve import resolve


@pytest.fixture
def upscale(yoda, tiny_checkpoint):
    return lambda *arguments: yoda("upscale", *arguments, "--model", tiny_checkpoint)


def command_of(report):
    text = report.read_text()
    content = json.loads(re.search(r'id="data">(.*?)</script>', text, flags=re.DOTALL).group(1))
    return shlex.split(content["command"])


CHOICES = [
    ("png", "--budget", 0.3, "--seed", 9),
    ("png", "--exact", "--block", 256, "--tile", 64, "--tile-overlap", 4, "--strip-metadata"),
    ("jpg", "--scale", 2.345678901, "--quality", 70, "--lower-bound", 0.123456789),
    ("webp", "--width", 77, "--faithful", "--attention", "edge", "--no-skip"),
    ("png", "--steps", 3, "--sampler", "ddpm", "--precision", "bf16", "--fidelity", 0.31),
]


@pytest.mark.parametrize("chosen", CHOICES, ids=lambda chosen: chosen[1])
def test_the_printed_command_makes_the_same_bytes(upscale, yoda, tmp_path, chosen):
    suffix, *options = chosen
    is_blocked = "--block" in options  # two blocks of 256 pixels, if a watched picture had any
    path = save_photo(tmp_path / "in.png", 12, 80 if is_blocked else 30)
    target = tmp_path / f"o.{suffix}"
    done = upscale(path, "-o", target, "--report", tmp_path / "r.html", *options)
    assert done.code == 0, done.err
    before = target.read_bytes()
    target.unlink()
    again = yoda(*command_of(tmp_path / "r.html")[1:])
    assert again.code == 0, again.err
    assert target.read_bytes() == before


def test_every_choice_that_decides_the_pixels_stands_in_the_file(upscale, tmp_path):
    path = save_photo(tmp_path / "in.png", 30, 40)
    chosen = ("--budget", 0.5, "--exact", "--block", 256, "--tile-overlap", 4)
    done = upscale(path, "-o", tmp_path / "o.png", *chosen)
    assert done.code == 0, done.err
    with Image.open(tmp_path / "o.png") as image:
        settings = json.loads(json.loads(image.info["yoda"])["settings"])
    expected = {"budget": 0.5, "exact": True, "block": 256, "tile_overlap": 4}
    assert {key: settings.get(key) for key in expected} == expected


def command(**options):
    """The words of a command made from options of a network in closed form."""
    settings = resolve(UpscaleOptions(**options), fake_model())
    return shlex.split(settings.command(Path("a.png"), Path("b.png")))


def test_the_command_names_a_compiled_network():
    """It takes too long for the tests above."""
    assert "--compile" in command(compile=True)
    assert not {"--compile", "--exact", "--budget", "--block"} & set(command())


def test_the_command_names_what_ran_the_network():
    """A report is made by torch; the same picture without one would be left to ncnn."""
    words = command()
    assert words[words.index("--runtime") + 1] == "torch"


@pytest.mark.slow
def test_the_printed_command_makes_the_same_bytes_in_a_process_of_its_own(tmp_path):
    path = save_photo(tmp_path / "in.png", 40, 48)
    target, report = tmp_path / "o.webp", tmp_path / "r.html"
    chosen = ("--budget", 0.4, "--tile", 96, "--tile-overlap", 8, "--width", 150)
    assert finished("upscale", path, "-o", target, "--report", report, *chosen).returncode == 0
    before = target.read_bytes()
    target.unlink()
    assert finished(*command_of(report)[1:]).returncode == 0
    assert target.read_bytes() == before


def test_options_of_numbers_keep_all_their_digits():
    words = command(scale=50 / 13)
    assert float(words[words.index("--scale") + 1]) == 50 / 13
