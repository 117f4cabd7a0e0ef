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
