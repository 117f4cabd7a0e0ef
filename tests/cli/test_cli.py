"""The command line as a person meets it: results, exit codes, one-line errors."""

import gc
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from cases import one_by_default
from fakes import save_photo
from PIL import Image

from yoda_cli.errors import YodaError


def only_line(err):
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("yoda: ")
    return lines[0]


@pytest.fixture
def picture(tmp_path):
    return save_photo(tmp_path / "in.png", 9, 13)


def test_a_picture_goes_in_and_a_larger_one_comes_out(upscale, picture, tmp_path):
    done = upscale(picture, "-o", tmp_path / "out.png")
    assert done.code == 0
    assert done.out == f"{tmp_path / 'out.png'}\n"
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (52, 36)
        assert image.mode == "RGB"
    assert "\r" not in done.err
    started, finished = done.err.splitlines()
    assert re.fullmatch(r"in\.png: \d tiles? to compute, about \d+\.\d s", started)
    assert re.match(
        r"in\.png: 52×36, \d( of \d tiles| tiles?) computed, \d+\.\d s on cpu", finished
    )


def test_without_an_output_the_result_stands_beside_the_input(upscale, picture, tmp_path):
    assert upscale(picture).out == f"{tmp_path / 'in_tiny_x4.png'}\n"
    assert upscale(picture, "--scale", "2.5").out == f"{tmp_path / 'in_tiny_x2.5.png'}\n"
    with Image.open(tmp_path / "in_tiny_x2.5.png") as image:
        assert image.size == (32, 22)


def test_a_folder_as_output_takes_several_inputs(upscale, tmp_path):
    (tmp_path / "out").mkdir()
    inputs = [save_photo(tmp_path / f"{i}.png", 5, 6, seed=i) for i in range(2)]
    done = upscale(*inputs, "-o", tmp_path / "out")
    assert done.code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "0.png",
        "1.png",
    ]


def test_two_inputs_never_share_an_output(upscale, tmp_path):
    for name in ("a", "b", "out"):
        (tmp_path / name).mkdir()
    inputs = [save_photo(tmp_path / n / "x.png", 5, 6, seed=i) for i, n in enumerate("ab")]
    done = upscale(*inputs, "-o", tmp_path / "out")
    assert done.code == 4
    assert done.out == f"{tmp_path / 'out' / 'x.png'}\n"
    assert "is the output of" in done.err


def test_an_input_named_twice_is_enlarged_once(upscale, picture):
    assert upscale(picture, picture).out.count("\n") == 1


def test_one_bad_input_does_not_stop_the_rest(upscale, picture, tmp_path):
    (tmp_path / "bad.png").write_text("not a picture")
    done = upscale(tmp_path / "bad.png", picture)
    assert done.code == 4
    assert done.out == f"{tmp_path / 'in_tiny_x4.png'}\n"
    assert "bad.png" in done.err


def test_json_is_one_object_on_stdout(upscale, picture):
    done = upscale(picture, "--json", "-q")
    record = json.loads(done.out)
    assert (record["schema"], record["status"]) == (2, "done")
    assert record["width"] == 52
    assert record["calls"] == record["planned_calls"] <= record["dense_calls"] == 4
    assert done.err == ""


def test_the_same_command_gives_the_same_bytes_and_the_file_says_how_it_was_made(
    upscale, picture, tmp_path
):
    upscale(picture, "-o", tmp_path / "a.png")
    upscale(picture, "-o", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert json.loads(image.info["yoda"])["model"] == "tiny"


def test_an_own_result_is_replaced_and_a_foreign_file_is_not(upscale, picture, tmp_path):
    target = tmp_path / "out.png"
    assert upscale(picture, "-o", target).code == 0
    assert upscale(picture, "-o", target, "--seed", "1").code == 0
    save_photo(target, 4, 4)
    before = target.read_bytes()
    refused = upscale(picture, "-o", target)
    assert refused.code == 7
    assert "--overwrite" in only_line(refused.err)
    assert target.read_bytes() == before
    assert upscale(picture, "-o", target, "--overwrite").code == 0


def test_the_input_is_never_the_output(upscale, picture):
    before = picture.read_bytes()
    assert upscale(picture, "-o", picture, "--overwrite").code == 7
    assert picture.read_bytes() == before


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "1000", "inf"])
def test_scales_that_cannot_be_meant_are_usage_errors(upscale, picture, scale):
    done = upscale(picture, "--scale", scale)
    assert done.code == 2
    assert "scale" in only_line(done.err)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "nosuch"],
        ["--steps", "0"],
        ["--steps", "many"],
        ["--nosuch"],
        ["--tile", "big"],
        ["--tile", "-4"],
        ["--device", "gpu"],
        ["--precision", "int8"],
        ["--sampler", "euler"],
        ["--attention", "egde"],
        ["--lower-bound", "0"],
        ["--faithful", "--sampler", "ddim"],
        ["--quality", "101"],
    ],
)
def test_options_that_cannot_be_meant_are_usage_errors(yoda, tiny_checkpoint, picture, arguments):
    model = [] if "--model" in arguments else ["--model", tiny_checkpoint]
    done = yoda("upscale", picture, *model, *arguments)
    assert done.code == 2
    only_line(done.err)
    assert done.out == ""


def test_a_missing_input_is_code_3(upscale, tmp_path):
    done = upscale(tmp_path / "nosuch.png")
    assert done.code == 3
    assert "nosuch.png" in only_line(done.err)


def test_a_folder_without_pictures_says_so(upscale, tmp_path):
    done = upscale(tmp_path)
    assert done.code == 3
    assert "no pictures" in only_line(done.err)


def corrupt(tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    if kind == "text":
        path.write_text("this is not a picture\n")
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        path = tmp_path / "truncated.jpg"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "bomb":
        small = Image.new("L", (1, 1))
        small.save(path)
        data = bytearray(path.read_bytes())
        data[16:24] = (100_000).to_bytes(4, "big") * 2
        import zlib

        data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
        path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "bomb"])
def test_files_that_are_no_pictures_are_code_4_and_leave_nothing(upscale, tmp_path, kind):
    path = corrupt(tmp_path, kind)
    before = set(tmp_path.iterdir())
    done = upscale(path)
    assert done.code == 4
    assert path.name in only_line(done.err)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("target", ["nosuch/out.png", "out.xyz", "in.png/out.png"])
def test_an_output_that_cannot_be_written_is_code_7_before_any_work(
    upscale, picture, tmp_path, target
):
    done = upscale(picture, "-o", tmp_path / target)
    assert done.code == 7
    only_line(done.err)


def test_a_failure_while_writing_leaves_no_half_file(upscale, picture, tmp_path, monkeypatch):
    import os

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = set(tmp_path.iterdir())
    done = upscale(picture, "-o", tmp_path / "out.png")
    assert done.code == 7
    assert "No space left" in only_line(done.err.splitlines()[-1])
    assert set(tmp_path.iterdir()) == before


def test_a_size_the_format_cannot_hold_is_refused_before_any_work(upscale, tmp_path):
    path = save_photo(tmp_path / "long.png", 1, 5000)
    done = upscale(path, "-o", tmp_path / "out.webp")
    assert done.code == 7
    assert "16383" in only_line(done.err)


def damaged(tmp_path, tiny_checkpoint, kind):
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    if kind == "missing file":
        return path
    if kind == "truncated":
        path.write_bytes(tiny_checkpoint.read_bytes()[:-10])
        return path
    if kind == "pickle":
        path = tmp_path / "model.pth"
        torch.save({"state_dict": subprocess.Popen}, path)
        return path
    with safe_open(tiny_checkpoint, "pt") as file:
        metadata = file.metadata()
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    if kind == "missing key":
        del tensors["denoise_fn.stem.weight"]
    elif kind == "wrong shape":
        tensors["denoise_fn.stem.weight"] = torch.zeros(1)
    elif kind == "no metadata":
        metadata = None
    elif kind == "unknown backbone":
        metadata = {"yoda": metadata["yoda"].replace("srdiff", "nosuch")}
    elif kind == "not finite":
        tensors["denoise_fn.stem.weight"][:] = float("nan")
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "missing file",
        "truncated",
        "pickle",
        "missing key",
        "wrong shape",
        "no metadata",
        "unknown backbone",
        "not finite",
    ],
)
def test_checkpoints_that_cannot_be_trusted_are_code_5(
    yoda, picture, tmp_path, tiny_checkpoint, kind
):
    path = damaged(tmp_path, tiny_checkpoint, kind)
    before = set(tmp_path.iterdir())
    done = yoda("upscale", picture, "--model", path)
    assert done.code == 5
    assert path.name in only_line(done.err)
    assert set(tmp_path.iterdir()) == before


def test_a_device_that_is_not_there_is_code_6(upscale, picture):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    done = upscale(picture, "--device", "cuda")
    assert done.code == 6
    only_line(done.err)


def test_an_internal_error_is_one_line_and_a_traceback_only_with_debug(
    upscale, picture, monkeypatch, tiny_checkpoint
):
    import yoda_cli.upscaling.picture
    from yoda_cli.cli import run

    def broken(*arguments, **options):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(yoda_cli.upscaling.picture, "upscale_tensor", broken)
    done = upscale(picture)
    assert done.code == 1
    assert "ZeroDivisionError" in only_line(done.err)
    arguments = ["upscale", str(picture), "--model", str(tiny_checkpoint)]
    with pytest.raises(YodaError) as found:
        run(arguments, debug=True)
    assert isinstance(found.value.__cause__, ZeroDivisionError)


def test_interruption_is_code_130_and_leaves_nothing(upscale, picture, tmp_path, monkeypatch):
    import yoda_cli.upscaling.picture

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(yoda_cli.upscaling.picture, "upscale_tensor", interrupted)
    before = set(tmp_path.iterdir())
    assert upscale(picture).code == 130
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (20_000, 1)])
def test_extreme_pictures_give_correct_results(upscale, tmp_path, size):
    path = save_photo(tmp_path / "in.png", *size)
    done = upscale(path, "-o", tmp_path / "out.png")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (size[1] * 4, size[0] * 4)


def test_help_and_version_answer_without_a_model():
    for arguments in (["--help"], ["--version"], ["upscale", "--help"], ["train", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "yoda_cli", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0
        assert done.stdout
    assert (
        "130"
        in subprocess.run(
            [sys.executable, "-m", "yoda_cli", "--help"], capture_output=True, text=True
        ).stdout
    )


def test_no_command_shows_help_and_is_a_usage_error(yoda):
    assert yoda().code == 2


@pytest.mark.parametrize("name", one_by_default(["SIGTERM", "SIGINT"]))
def test_a_signal_ends_a_run_soon_and_leaves_nothing(tmp_path, name):
    import signal
    import time

    picture = save_photo(tmp_path / "in.png", 200, 300)
    command = [sys.executable, "-m", "yoda_cli", "upscale", str(picture), "--steps", "500"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "to compute" in line:
                break
        process.send_signal(getattr(signal, name))
        began = time.monotonic()
        process.stderr.read()
        assert process.wait(30) == 130
    assert time.monotonic() - began < 15
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.parametrize(
    "command", ["upscale", "attention", "bench", "metrics", "train", "weights"]
)
def test_no_help_text_loses_words_in_brackets_to_markup(command):
    """rich reads [words] as a style and drops them."""
    import typer

    from yoda_cli.cli import app

    group = typer.main.get_command(app()).commands[command]
    commands = [group, *getattr(group, "commands", {}).values()]
    texts = [getattr(parameter, "help", "") or "" for each in commands for parameter in each.params]
    assert any(texts)
    for text in texts:
        assert not re.search(r"\[[a-z][^\]]*\]", text), f"{command}: {text}"


def test_lr_psnr_reduces_by_the_scale_that_was_named(yoda, tmp_path):
    """A result whose detail within every 2×2 pixels is wrong is right at half its size."""
    truth = np.random.default_rng(0).integers(60, 190, (48, 64, 3), dtype=np.uint8)
    wrong = truth.astype(int)
    wrong[::2, ::2] += 20
    wrong[1::2, ::2] -= 20
    for name, pixels in (("sr.png", wrong), ("hr.png", truth)):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
    found = {}
    for scale in (1, 2, 4):
        done = yoda(
            "metrics", tmp_path / "sr.png", tmp_path / "hr.png", "--metric", "lr-psnr",
            "--scale", scale, "--json",
        )  # fmt: skip
        assert done.code == 0, done.err
        found[scale] = json.loads(done.out)["rows"][0]["lr-psnr"]
    assert found[1] < found[2] < found[4]
    assert yoda("metrics", tmp_path / "sr.png", tmp_path / "hr.png", "--scale", 0).code == 2


def test_a_metric_that_was_asked_for_and_cannot_be_had_is_exit_five(yoda, tmp_path):
    for name in ("sr.png", "hr.png"):
        save_photo(tmp_path / name, 40, 40)
    done = yoda(
        "metrics", tmp_path / "sr.png", tmp_path / "hr.png", "--metric", "lpips-alex", "--offline"
    )
    assert done.code == 5
    assert done.err.count("\n") == 1


def test_garbage_is_looked_for_as_soon_as_a_command_works(upscale, picture):
    code = """
import gc, sys
import yoda_cli.cli.config as home
def config() -> None: print(gc.isenabled())
home.config, sys.argv = config, ["yoda", "config"]
from yoda_cli.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    gc.disable()
    try:
        assert upscale(picture).code == 0
        assert gc.isenabled()
    finally:
        gc.enable()
