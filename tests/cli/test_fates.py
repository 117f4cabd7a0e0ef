"""What is said of each input of a run: JSON, the last lines, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from fakes import save_photo


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for i, name in enumerate("ab"):
        save_photo(tmp_path / "in" / f"{name}.png", 5, 6, seed=i)
    (tmp_path / "in" / "bad.png").write_text("no picture")
    return tmp_path / "in"


def fates(done):
    records = [json.loads(line) for line in done.out.splitlines()]
    assert {record["schema"] for record in records} == {2}
    return sorted((record["input"].rsplit("/", 1)[1], record["status"]) for record in records)


def test_every_input_has_a_json_line_whatever_becomes_of_it(upscale, folder, tmp_path):
    first = upscale(folder, "-o", tmp_path / "out", "--json")
    assert first.code == 4
    assert fates(first) == [("a.png", "done"), ("b.png", "done"), ("bad.png", "failed")]
    failed = next(r for r in map(json.loads, first.out.splitlines()) if r["status"] == "failed")
    assert failed["exit_code"] == 4
    assert "bad.png" in failed["error"]
    again = upscale(folder, "-o", tmp_path / "out", "--json")
    assert fates(again) == [("a.png", "skipped"), ("b.png", "skipped"), ("bad.png", "failed")]


def test_a_single_picture_that_fails_has_its_line_too(upscale, folder):
    assert fates(upscale(folder / "bad.png", "--json")) == [("bad.png", "failed")]


def test_failed_names_are_said_again_at_the_end(upscale, folder, tmp_path):
    lines = upscale(folder, "-o", tmp_path / "out").err.splitlines()
    assert lines[-2:] == [
        "2 made, 0 there already, 1 failed",
        f"failed: {folder / 'bad.png'}",
    ]


def test_several_pictures_make_the_folder_that_they_go_to(upscale, folder, tmp_path):
    done = upscale(folder / "a.png", folder / "b.png", "-o", tmp_path / "new")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "new").glob("*.png"))) == 2
    done = upscale(folder / "a.png", folder / "b.png", "-o", tmp_path / "new.png")
    assert done.code == 2
    assert "looks like a file" in done.err


def test_an_input_folder_is_no_output_folder(upscale, folder):
    before = sorted(folder.iterdir())
    done = upscale(folder, "-o", folder)
    assert done.code == 2
    assert "is an input folder" in done.err
    assert sorted(folder.iterdir()) == before


def test_ctrl_c_says_what_was_done_and_how_to_go_on(upscale, folder, tmp_path, monkeypatch):
    from yoda_cli.upscaling import picture

    (folder / "bad.png").unlink()
    upscale_tensor, calls = picture.upscale_tensor, []

    def second_is_interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return upscale_tensor(*arguments, **options)

    monkeypatch.setattr(picture, "upscale_tensor", second_is_interrupted)
    done = upscale(folder, "-o", tmp_path / "out", "--batch", 1)
    assert done.code == 130
    said = done.err.splitlines()[-1]
    assert re.fullmatch(r"interrupted: [01] of 2 made; the same command goes on", said)


def test_ctrl_c_counts_what_was_being_written(upscale, folder, tmp_path, monkeypatch):
    from yoda_cli.upscaling import picture
    from yoda_cli.upscaling.batch import local

    (folder / "bad.png").unlink()
    save_photo(folder / "c.png", 7, 6, seed=3)
    upscale_tensor, write, calls = picture.upscale_tensor, local.write, []

    def third_is_interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return upscale_tensor(*arguments, **options)

    def slowly(*arguments):
        time.sleep(0.3)
        return write(*arguments)

    monkeypatch.setattr(picture, "upscale_tensor", third_is_interrupted)
    monkeypatch.setattr(local, "write", slowly)
    done = upscale(folder, "-o", tmp_path / "out", "--batch", 1)
    assert done.code == 130
    made = len(list((tmp_path / "out").glob("*.png")))
    assert made == len(done.out.splitlines())
    last = done.err.splitlines()[-1]
    assert last == f"interrupted: {made} of 3 made; the same command goes on"
    monkeypatch.undo()
    again = upscale(folder, "-o", tmp_path / "out", "--batch", 1)
    assert f"{made} of 3 pictures there already" in again.err


INTERRUPTED_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from yoda_cli.__main__ import main
sys.argv[0] = "yoda"
main()
"""


def test_ctrl_c_has_an_answer_while_libraries_are_loaded(tmp_path):
    save_photo(tmp_path / "a.png", 5, 6)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, "upscale", tmp_path / "a.png", "--runtime",
         "torch"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr == "interrupted: the same command goes on\n"


def test_ctrl_c_has_an_answer_in_other_commands(yoda, monkeypatch, tmp_path):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    save_photo(tmp_path / "a.png", 40, 48)
    metrics = ("metrics", tmp_path / "a.png", tmp_path / "a.png", "--metric", "psnr")
    assert yoda(*metrics).code == 0  # a module that is first imported now would keep what is set
    monkeypatch.setattr("yoda_cli.images.read_picture", interrupt)
    done = yoda(*metrics)
    assert done.code == 130
    assert done.err.splitlines()[-1] == "interrupted: the same command begins again"


def test_ctrl_c_ends_a_graph_between_two_calls_of_ncnn():
    from ncnn import Mat

    from yoda_cli.devices.graphs import Graph, read_graphs
    from yoda_cli.weights.entries import PACKAGE

    for layout in read_graphs(PACKAGE / "checkpoints" / "general")[0].values():
        assert len(layout.stops) >= 3
        asked = []

        class Net:
            """Its own extractor; the signal comes while the second value is computed."""

            def create_extractor(self):
                return self

            def input(self, name, value): ...

            def extract(self, name, asked=asked):
                asked.append(name)
                if len(asked) == 2:
                    os.kill(os.getpid(), signal.SIGINT)
                return 0, Mat(np.ones(3, np.float32))

        with pytest.raises(KeyboardInterrupt):
            Graph(Net(), layout, 0).run(dict.fromkeys(layout.inputs, np.ones((1, 1, 4, 4))))
        assert asked == list(layout.stops[:2])


def test_doctor_ends_with_a_verdict_and_names_the_extras(yoda):
    done = yoda("doctor")
    assert done.err.splitlines()[0].startswith(("Ready: ", "Not ready: "))
    for extra in ("diffbir", "metrics", "ray", "vips"):
        assert f"extra {extra}" in done.out


def test_a_result_of_other_settings_is_not_replaced_without_a_word(upscale, folder, tmp_path):
    assert "it replaces" not in upscale(folder / "a.png").err
    assert "it replaces" not in upscale(folder / "a.png").err
    done = upscale(folder / "a.png", "--seed", 7)
    assert "a.png: it replaces a result with seed 0" in done.err
    record = json.loads(upscale(folder / "a.png", "--steps", 2, "--json").out)
    assert record["replaced"] == {"seed": "7", "steps": "4"}


@pytest.mark.parametrize("extra", [[], ["--strip-metadata"]])
def test_a_folder_is_resumed_whether_its_files_hold_a_mark_or_not(upscale, folder, tmp_path, extra):
    from PIL import Image

    (folder / "bad.png").unlink()
    (folder / "b.png").unlink()
    Image.open(folder / "a.png").save(folder / "c.bmp")
    common = (folder, "-o", tmp_path / "out", *extra)
    assert upscale(*common).code == 0
    again = upscale(*common)
    assert (again.code, again.out) == (0, "")
    other = upscale(*common, "--seed", 3)
    assert (other.code, other.out.count("\n")) == (0, 2)
    (tmp_path / "out" / "a.png").write_bytes((folder / "a.png").read_bytes())  # a person's own
    assert upscale(*common).code == 4


def test_sizes_stand_in_names_as_they_were_asked_and_other_contents_are_named(upscale, folder):
    (folder / "a.png").rename(folder / "noext")
    done = upscale(folder / "noext", "--width", 20)
    assert done.out.strip().endswith("noext_tiny_w20.png")
    assert "noext: is PNG by its content" in done.err


@pytest.mark.parametrize(("count", "words"), [(0, "0 tiles"), (1, "1 tile"), (2, "2 tiles")])
def test_counts_are_said_as_a_person_says_them(count, words):
    from yoda_cli.files import counted
    from yoda_cli.upscaling.batch.record import line_of

    assert counted(count, "tile") == words
    record = {
        "width": 4, "height": 4, "frames": 1, "calls": count, "dense_calls": count,
        "seconds": 1.0, "device": "cpu",
    }  # fmt: skip
    assert line_of(record) == f"4×4, {words} computed, 1.0 s on cpu"
