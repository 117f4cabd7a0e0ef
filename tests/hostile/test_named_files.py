"""A result is done again where any file that it was made with is another by now."""

import os
import time

import pytest
from fakes import save_photo
from PIL import Image

from yoda_cli.errors import InputError
from yoda_cli.upscaling.stable_source import hash_of_stable_file


@pytest.fixture
def upscale(yoda, tiny_checkpoint):
    def call(*arguments, model=tiny_checkpoint):
        return yoda("upscale", *arguments, "--model", model, "-q")

    return call


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(2):
        save_photo(tmp_path / "in" / f"{index}.png", 12, 16, seed=index)
    return tmp_path / "in"


def test_a_painted_map_that_was_painted_over_makes_new_results(upscale, folder, tmp_path):
    painted = tmp_path / "map.png"
    command = (folder, "-o", tmp_path / "out", "--attention", painted)
    Image.new("L", (16, 12), 0).save(painted)
    assert len(upscale(*command).out.splitlines()) == 2
    assert upscale(*command).out == ""
    Image.new("L", (16, 12), 255).save(painted)
    assert len(upscale(*command).out.splitlines()) == 2
    assert upscale(*command).out == ""


def test_a_checkpoint_that_was_trained_on_makes_new_results(
    upscale, folder, tmp_path, tiny_checkpoint
):
    from safetensors import safe_open
    from safetensors.torch import save_file

    model = tmp_path / "model.safetensors"
    model.write_bytes(tiny_checkpoint.read_bytes())
    command = (folder, "-o", tmp_path / "out")
    assert len(upscale(*command, model=model).out.splitlines()) == 2
    assert upscale(*command, model=model).out == ""
    with safe_open(model, "pt") as file:
        card, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file({name: tensor * 0.5 for name, tensor in tensors.items()}, model, metadata=card)
    assert len(upscale(*command, model=model).out.splitlines()) == 2


def test_a_benchmark_measures_pictures_that_changed_again(yoda, folder, tiny_checkpoint, tmp_path):
    command = ("bench", "--dataset", folder, "--model", tiny_checkpoint, "--metric", "psnr",
               "--json", "-q")  # fmt: skip
    first = yoda(*command)
    assert first.code == 0, first.err
    save_photo(folder / "0.png", 12, 16, seed=9)
    assert yoda(*command).out.split('"psnr"', 1)[1] != first.out.split('"psnr"', 1)[1]


@pytest.mark.parametrize("age", [0, 3600])
def test_bytes_changed_in_place_are_seen_whatever_the_times_say(tmp_path, age):
    source = tmp_path / "a.png"
    source.write_bytes(b"before")
    then = time.time_ns() - age * 10**9
    os.utime(source, ns=(then, then))

    def replaced():
        with hash_of_stable_file(source):
            source.write_bytes(b"behind")  # as many
            os.utime(source, ns=(then, then))

    with pytest.raises(InputError, match="changed"):
        replaced()


def test_a_link_more_to_a_source_is_no_change(tmp_path):
    source = tmp_path / "a.png"
    source.write_bytes(b"same")
    with hash_of_stable_file(source):
        (tmp_path / "b.png").hardlink_to(source)
        source.chmod(0o600)


@pytest.mark.parametrize("output", ["loop", "loop/out"])
def test_links_that_lead_in_a_circle_are_refused_in_one_line(upscale, folder, tmp_path, output):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = upscale(folder, "-o", tmp_path / output)
    assert (done.code, done.err.count("\n")) == (7, 1), done.err
    assert "internal" not in done.err
