"""A whole AddSR of random weights through the command line: import, upscale, look inside."""

import json

import pytest
import tiny_addsr as tiny
from fakes import save_photo
from PIL import Image


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("addsr")
    tiny.make_files(folder)
    tiny.write_registry(folder / "registry.toml")
    save_photo(folder / "in.png", 16, 24)
    return folder


def test_files_are_brought_and_a_picture_becomes_a_larger_one(yoda, made, tmp_path):
    shared = ("--registry", made / "registry.toml", "--cache-dir", tmp_path / "cache")
    missing = yoda("upscale", made / "in.png", "-m", "tiny", "-o", tmp_path / "out.png", *shared)
    assert missing.code != 0
    assert "made by the test" in missing.err  # how to get a file that no program may fetch
    for name in tiny.NAMES.values():
        done = yoda("weights", "import", made / name, "--as", name, *shared)
        assert done.code == 0, done.err
    done = yoda(
        "upscale", made / "in.png", "-m", "tiny", "-o", tmp_path / "out.png", *shared, "--tile", 64,
        "--attention", "uniform", "--dump", tmp_path / "dump", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["calls"] == record["planned_calls"] == record["dense_calls"]
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (96, 64)
        settings = json.loads(json.loads(image.text["yoda"])["settings"])
    assert (settings["sampler"], settings["steps"]) == ("renoise", 4)
    names = {path.name for path in (tmp_path / "dump" / "in").iterdir()}
    assert {"attention.png", "steps.json"} <= names


@pytest.fixture
def upscale(yoda, made):
    """``yoda upscale SOURCE -m tiny …``; the first use imports the files by name."""
    shared = ("--registry", made / "registry.toml", "--cache-dir", made / "cache")

    def run(source, *arguments):
        if not (made / "cache").exists():
            for name in tiny.NAMES.values():
                assert yoda("weights", "import", made / name, "--as", name, *shared).code == 0
        return yoda("upscale", source, "-m", "tiny", *shared, *arguments)

    return run


@pytest.mark.parametrize("size", [(20, 20), (3, 1)])
def test_a_picture_smaller_than_the_networks_know_is_worked_on_larger(upscale, tmp_path, size):
    """At the shortest side that they were trained on, and reduced to what was asked for."""
    width, height = size
    save_photo(tmp_path / "in.png", height, width)
    done = upscale(tmp_path / "in.png", "-o", tmp_path / "out.png", "--steps", 1, "--json")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (4 * width, 4 * height)
    assert json.loads(done.out)["calls"] == 1


def test_a_very_long_picture_is_planned_in_windows(upscale, tmp_path):
    """12,000 × 160 pixels: windows of 512 pixels, and only where there is something to refine."""
    save_photo(tmp_path / "long.png", 40, 3000)
    options = (tmp_path / "long.png", "-o", tmp_path / "out.png", "--json", "--dry-run")
    planned = json.loads(upscale(*options).out)
    assert (planned["width"], planned["height"]) == (12000, 160)
    windows = planned["dense_calls"] / 4  # steps
    assert 12000 / 512 < windows < 2.2 * 12000 / 512
    assert planned["planned_calls"] <= planned["dense_calls"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(3000, 40), (40, 3000)])
def test_a_very_long_picture_is_made(upscale, tmp_path, size):
    width, height = size
    save_photo(tmp_path / "long.png", height, width)
    done = upscale(tmp_path / "long.png", "-o", tmp_path / "out.png", "--steps", 1)
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (4 * width, 4 * height)
        assert len(image.resize((64, 64)).convert("L").getcolors()) > 16
