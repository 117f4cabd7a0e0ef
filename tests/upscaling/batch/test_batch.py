"""Runs over many pictures: what is planned, kept, resumed, refused, and the same bytes any way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cases import one_by_default
from fakes import save_photo
from PIL import Image

from yoda_cli.errors import UsageError
from yoda_cli.upscaling.batch.inputs import shard_of
from yoda_cli.upscaling.batch.manifest import NAME


@pytest.fixture
def folder(tmp_path):
    """Five pictures, one of them bad, in a tree of two levels; and a file that is none."""
    root = tmp_path / "in"
    (root / "deep" / "er").mkdir(parents=True)
    for i, name in enumerate(["a.png", "b.png", "deep/c.png", "deep/er/d.png"]):
        save_photo(root / name, 6 + i, 9, seed=i)
    (root / "bad.png").write_bytes(b"no picture")
    (root / "notes.txt").write_text("not for us")
    return root


def files_of(folder):
    """Every file below, by its name, less the manifest."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != NAME
    }


def test_a_folder_keeps_its_tree_and_a_bad_file_stops_nothing(upscale, folder, tmp_path):
    done = upscale(folder, "-r")
    assert done.code == 4
    out = tmp_path / "in_tiny_x4"
    assert set(files_of(out)) == {"a.png", "b.png", "deep/c.png", "deep/er/d.png"}
    assert done.err.count("bad.png") == 2  # when it happens, and again at the end
    assert "4 made, 0 there already, 1 failed" in done.err
    assert len(done.out.splitlines()) == 4
    with Image.open(out / "deep" / "c.png") as image:
        assert image.size == (36, 32)


def test_without_r_only_the_top_is_done_and_an_output_folder_is_taken(upscale, folder, tmp_path):
    upscale(folder, "-o", tmp_path / "out")
    assert set(files_of(tmp_path / "out")) == {"a.png", "b.png"}


def test_the_same_command_again_does_nothing_and_after_changes_what_changed(
    upscale, folder, tmp_path
):
    out = tmp_path / "in_tiny_x4"
    upscale(folder, "-r")
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    again = upscale(folder, "-r")
    assert again.out == ""
    assert "4 of 5 pictures there already" in again.err
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.png")} == times
    save_photo(folder / "a.png", 7, 7, seed=9)  # another source
    (out / "b.png").write_bytes((out / "b.png").read_bytes()[:-9])  # a damaged result
    (out / "deep" / "c.png").unlink()
    assert {Path(p).name for p in upscale(folder, "-r", "--overwrite").out.split()} == {
        "a.png", "b.png", "c.png",
    }  # fmt: skip
    assert len(upscale(folder, "-r", "--seed", "1").out.split()) == 4  # other settings


def test_why_a_picture_fails_is_said_again_where_all_others_are_there(upscale, tmp_path):
    (tmp_path / "in").mkdir()
    whole = save_photo(tmp_path / "in" / "a.png", 6, 6).read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        done = upscale(tmp_path / "in", "-o", tmp_path / "out", "-q")
        assert done.code == 4
        assert done.err.count("b.png is damaged") == 1


def test_a_torn_manifest_is_read_as_far_as_it_is_whole(upscale, folder, tmp_path):
    upscale(folder, "-r")
    manifest = tmp_path / "in_tiny_x4" / NAME
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    assert len(upscale(folder, "-r").out.split()) == 2
    assert upscale(folder, "-r").out == ""
    entries = [json.loads(x) for x in manifest.read_bytes().splitlines() if x.endswith(b"}")]
    assert {e["target"] for e in entries} == {"a.png", "b.png", "deep/c.png", "deep/er/d.png"}


def test_skipping_gives_the_same_pixels(upscale, folder, tmp_path):
    """What a file says of its settings differs."""
    upscale(folder, "-r", "-o", tmp_path / "one", "--exact")
    upscale(folder, "-r", "-o", tmp_path / "other", "--exact", "--no-skip")
    for name in files_of(tmp_path / "one"):
        with Image.open(tmp_path / "one" / name) as one, Image.open(tmp_path / "other" / name) as x:
            assert one.tobytes() == x.tobytes()


@pytest.mark.parametrize(
    "extra", [["-j", "2"], ["--shard", "1/2"], pytest.param(["-j", "3"], marks=pytest.mark.slow)]
)
def test_workers_and_shards_give_the_same_bytes(upscale, folder, tmp_path, extra):
    upscale(folder, "-r", "-o", tmp_path / "one", "--exact")
    upscale(folder, "-r", "-o", tmp_path / "other", "--exact", *extra)
    if "--shard" in extra:
        upscale(folder, "-r", "-o", tmp_path / "other", "--exact", "--shard", "2/2")
    assert files_of(tmp_path / "other") == files_of(tmp_path / "one")


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_no_picture_is_lost(folder, tmp_path, tiny_checkpoint):
    for i in range(6):
        save_photo(folder / f"more{i}.png", 60, 60, seed=i)
    run = subprocess.Popen(
        [sys.executable, "-m", "yoda_cli", "upscale", folder, "-o", tmp_path / "out", "-j", "2",
         "--model", tiny_checkpoint, "--steps", "100", "--exact"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    import psutil

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((tmp_path / "out").glob("*.png")):
        time.sleep(0.02)
    workers = [p for p in psutil.Process(run.pid).children() if "spawn_main" in str(p.cmdline())]
    workers[0].kill()
    _, err = run.communicate(timeout=120)
    assert run.returncode == 4, err  # bad.png
    assert len(files_of(tmp_path / "out")) == 8
    assert "died" not in err


def kill_and_resume(folder, out, checkpoint, seconds, extra=()):
    """Kill a run after ``seconds``; returns whether it was still running."""
    command = [sys.executable, "-m", "yoda_cli", "upscale", folder, "-o", out, "--model",
               checkpoint, "--exact", "-r", "-q", *extra]  # fmt: skip
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    alive = run.poll() is None
    run.send_signal(signal.SIGKILL)
    run.wait()
    for path in out.rglob("*.png"):
        with Image.open(path) as image:
            image.load()  # whole, or not there
    return alive


@pytest.mark.parametrize("times", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_leaves_no_corrupt_file_and_the_same_bytes(
    upscale, folder, tmp_path, tiny_checkpoint, times
):
    for i in range(4):
        save_photo(folder / f"more{i}.png", 20, 20, seed=i)
    upscale(folder, "-r", "-o", tmp_path / "calm", "--exact")
    rng = np.random.default_rng(times)
    alive = 0
    for _ in range(times):
        if alive == 0:
            alive += kill_and_resume(folder, tmp_path / "out", tiny_checkpoint, 1.0)
        moment = float(rng.uniform(0.5, 4.0))
        alive += kill_and_resume(folder, tmp_path / "out", tiny_checkpoint, moment)
    assert alive > 1
    assert upscale(folder, "-r", "-o", tmp_path / "out", "--exact").code == 4
    assert files_of(tmp_path / "out") == files_of(tmp_path / "calm")


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(upscale, folder, tmp_path):
    before = set(tmp_path.rglob("*"))
    done = upscale(folder, "-r", "--dry-run", "--json")
    assert set(tmp_path.rglob("*")) == before
    records = [json.loads(line) for line in done.out.splitlines()]
    planned = [r for r in records if r.get("status") != "failed"]
    assert {Path(r["output"]).name for r in planned} == {"a.png", "b.png", "c.png", "d.png"}
    assert [Path(r["input"]).name for r in records if r not in planned] == ["bad.png"]
    assert all(r["forecast_seconds"] >= 0 for r in planned)
    done = upscale(folder, "-r", "--json")
    finished = [r for r in map(json.loads, done.out.splitlines()) if r["status"] == "done"]
    made = {r["output"]: r["calls"] for r in finished}
    assert made == {r["output"]: r["planned_calls"] for r in planned}


def test_the_largest_picture_comes_first(upscale, tmp_path):
    (tmp_path / "in").mkdir()
    for name, side in (("a", 8), ("b", 20), ("c", 12)):
        save_photo(tmp_path / "in" / f"{name}.png", side, side)
    done = upscale(tmp_path / "in")
    assert [Path(line).stem for line in done.out.split()] == ["b", "c", "a"]


def test_patterns_lists_and_streams_are_inputs(upscale, folder, tmp_path):
    done = upscale(str(folder / "[ab].png"), "-o", folder)
    assert {Path(p).name for p in done.out.split()} == {"a_tiny_x4.png", "b_tiny_x4.png"}
    (tmp_path / "list.txt").write_text(f"{folder / 'a.png'}\n\n{folder / 'b.png'}\n")
    (tmp_path / "out").mkdir()
    assert (
        len(upscale("--files-from", tmp_path / "list.txt", "-o", tmp_path / "out").out.split()) == 2
    )
    assert upscale(str(folder / "x*.png")).code == 3
    assert upscale().code == 2


def test_standard_input_and_output_carry_one_picture(folder, tmp_path, tiny_checkpoint):
    command = [sys.executable, "-m", "yoda_cli", "upscale", "-", "-o", "-", "-q", "--model",
               tiny_checkpoint, "--format", "webp"]  # fmt: skip
    done = subprocess.run(command, input=(folder / "a.png").read_bytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "x.webp").write_bytes(done.stdout)
    with Image.open(tmp_path / "x.webp") as image:
        assert (image.format, image.size) == ("WEBP", (36, 24))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--suffix", "_big"], {"a_big.png", "b_big.png"}),
        (["--name-template", "{scale}-{stem}-{seed}"], {"4-a-0.png", "4-b-0.png"}),
        (["--format", "jpg"], {"a.jpg", "b.jpg"}),
    ],
)
def test_names_and_formats_can_be_chosen(upscale, folder, tmp_path, arguments, names):
    upscale(folder, "-o", tmp_path / "out", *arguments)
    assert set(files_of(tmp_path / "out")) == names


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name-template", "{stem}/{model}"],
        ["--name-template", "{nosuch}"],
        ["--name-template", "{stem"],
        ["--name-template", "{stem.__class__}"],
        ["--format", "xyz"],
        ["--shard", "3/2"],
        ["--shard", "auto"],
        ["--engine", "nosuch"],
        ["--overwrite", "--skip-existing"],
        ["-j", "2", "--dump", "x"],
        ["-j", "0"],
        ["--budget", "2"],
        ["--tile", "64", "--tile-overlap", "64"],
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(upscale, folder, tmp_path, arguments):
    before = set(tmp_path.rglob("*"))
    done = upscale(folder, *arguments)
    assert done.code == 2, done.err
    assert set(tmp_path.rglob("*")) == before


def test_skip_existing_looks_at_source_and_settings_and_fail_existing_replaces_nothing(
    upscale, folder
):
    one = folder / "a.png"
    assert upscale(one, "--skip-existing").out
    assert upscale(one, "--skip-existing").out == ""
    assert upscale(one, "--skip-existing", "--seed", "2").out
    assert upscale(one, "--fail-existing").code == 7


def test_two_formats_of_one_name_are_told_apart_or_refused(upscale, tmp_path):
    (tmp_path / "in").mkdir()
    path = save_photo(tmp_path / "in" / "a.png", 8, 8)
    Image.open(path).save(tmp_path / "in" / "a.jpg")
    assert upscale(tmp_path / "in", "-o", tmp_path / "both").code == 0
    refused = upscale(tmp_path / "in", "-o", tmp_path / "png", "--format", "png")
    assert refused.code == 4
    assert "is the output of" in refused.err


def test_links_lead_nowhere_else(upscale, folder, tmp_path):
    out, away = tmp_path / "out", tmp_path / "away"
    out.mkdir()
    away.mkdir()
    (out / "deep").symlink_to(away)
    (folder / "loop").symlink_to(folder)
    done = upscale(folder, "-r", "-o", out)
    assert done.code == 4
    assert list(away.iterdir()) == []
    assert set(files_of(out)) == {"a.png", "b.png"}


def test_an_output_folder_inside_the_input_folder_is_not_an_input(upscale, folder):
    for _ in range(2):
        done = upscale(folder, "-r", "-o", folder / "out")
        assert set(files_of(folder / "out")) == {"a.png", "b.png", "deep/c.png", "deep/er/d.png"}
    assert done.out == ""


@pytest.mark.parametrize(
    "name",
    ["a b.png", "ü✨.png", "new\nline.png", "-dash.png", "x" * 251 + ".png", "{stem}.png",
     os.fsdecode(b"\xff\xfe.png")],
)  # fmt: skip
def test_odd_names_work(upscale, tmp_path, name):
    (tmp_path / "in").mkdir()
    save_photo(tmp_path / "in" / "plain.png", 6, 7).rename(tmp_path / "in" / name)
    assert upscale(tmp_path / "in").code == 0
    assert upscale(tmp_path / "in" / name).code == 0
    (beside,) = [p for p in (tmp_path / "in").iterdir() if p.name != name]
    assert len(os.fsencode(beside.name)) <= 255


def test_an_input_deleted_during_the_run_is_one_failure(upscale, folder, monkeypatch):
    import yoda_cli.upscaling.batch.plan

    read = yoda_cli.upscaling.batch.local.read

    def deleting(item, stream=None, **how):
        (folder / "b.png").unlink(missing_ok=True)
        return read(item, stream, **how)

    monkeypatch.setattr(yoda_cli.upscaling.batch.local, "read", deleting)
    done = upscale(folder)
    assert done.code == 4
    assert [Path(line).name for line in done.out.split()] == ["a.png"]


def test_a_moving_picture_keeps_its_frames_and_their_times(upscale, tmp_path):
    frames = [Image.open(save_photo(tmp_path / f"{i}.png", 8, 10, seed=i)) for i in range(3)]
    for kind, suffix in (("GIF", ".gif"), ("WEBP", ".webp"), ("PNG", ".png")):
        path = tmp_path / f"moving{suffix}"
        frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=[40, 80, 120])
        done = upscale(path, "--json", "-q")
        assert json.loads(done.out)["frames"] == 3
        with Image.open(json.loads(done.out)["output"]) as image:
            assert (image.format, image.n_frames, image.size) == (kind, 3, (40, 32))
            image.seek(1)
            image.load()
            assert image.info["duration"] == 80


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RANK": "1", "WORLD_SIZE": "4"}, (2, 4)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "1",
            },
            (3, 3),
        ),
    ],
)
def test_a_shard_comes_from_the_cluster(monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shard = shard_of("auto")
    assert (shard.index, shard.count) == expected
    with pytest.raises(UsageError):
        shard_of("0/2")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", one_by_default(["1", "2"]))
def test_an_interrupted_run_ends_at_once_and_leaves_no_half_file(
    folder, tmp_path, tiny_checkpoint, number, jobs
):
    for i in range(40):
        save_photo(folder / f"more{i}.png", 60, 60, seed=i)
    run = subprocess.Popen(
        [sys.executable, "-m", "yoda_cli", "upscale", folder, "-o", tmp_path / "out", "-j", jobs,
         "--model", tiny_checkpoint, "--steps", "100", "--exact", "-q"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((tmp_path / "out").glob("*.png")):
        time.sleep(0.02)
    made = len(list((tmp_path / "out").glob("*.png")))
    run.send_signal(number)
    asked = time.monotonic()
    _, err = run.communicate(timeout=30)
    assert time.monotonic() - asked < 5  # 2 s on a quiet machine
    assert run.returncode == 130, err
    assert len(files_of(tmp_path / "out")) <= made + 4  # of 42: at most those in work
    assert b"Traceback" not in err
    for name, data in files_of(tmp_path / "out").items():
        assert name.endswith(".png"), name
        assert data.endswith(b"IEND\xaeB`\x82")


def mutated(rng, data):
    """Some bytes changed, a piece cut out or doubled."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
    which = rng.integers(3)
    return bytes(data[:at] + (data[at : at + length] * int(which)) + data[at + length :])


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_of_every_format_never_break_a_run(upscale, tmp_path, count):
    rng = np.random.default_rng(count)
    (tmp_path / "in").mkdir()
    image = Image.open(save_photo(tmp_path / "seed.png", 6, 7))
    kinds = [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("TIFF", "tif"), ("BMP", "bmp"),
             ("GIF", "gif"), ("AVIF", "avif")]  # fmt: skip
    sound = {}
    for kind, suffix in kinds:
        image.save(tmp_path / f"seed.{suffix}", kind)
        sound[suffix] = (tmp_path / f"seed.{suffix}").read_bytes()
    for i in range(count):
        suffix = kinds[i % len(kinds)][1]
        (tmp_path / "in" / f"{i}.{suffix}").write_bytes(mutated(rng, sound[suffix]))
    done = upscale(tmp_path / "in", "-o", tmp_path / "out", "--steps", "1")
    assert done.code in (0, 4), done.err[-2000:]
    assert "Traceback" not in done.err
    assert "internal" not in done.err
    made, failed = len(done.out.splitlines()), done.err.count("yoda: ")
    assert made + failed == count
    assert made > count // 20
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out"} | {f"seed.{s}" for _, s in kinds}


NAMES = [
    "..", "...", "CON", "a\tb", "\u202egnp", "%s%n", "$(touch x)", "`x`", "a;b", "-r", "--", "~",
    "\\..\\x", "é" * 60, "{0}", "{stem!r}", "nul\u2400", "\x7f", "\x1b[31m", "*?[x]",
]  # fmt: skip


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_hostile_names_stay_inside_the_output_folder(upscale, tmp_path, count):
    rng = np.random.default_rng(count)
    (tmp_path / "in").mkdir()
    picture = save_photo(tmp_path / "in" / "p.png", 4, 4).read_bytes()
    names = set()
    while len(names) < count:
        parts = [NAMES[int(rng.integers(len(NAMES)))] for _ in range(int(rng.integers(1, 4)))]
        name = "".join(parts) + str(len(names))
        if len(os.fsencode(name)) < 250 and not name.startswith("."):
            names.add(name)
            (tmp_path / "in" / f"{name}.png").write_bytes(picture)
    done = upscale(tmp_path / "in", "-o", tmp_path / "out", "--steps", "1")
    assert done.code == 0, done.err[-2000:]
    assert len(files_of(tmp_path / "out")) == count + 1
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out"}


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_small_files_with_bad_ones_among_them_finish_in_flat_memory(upscale, tmp_path, count):
    import tracemalloc

    (tmp_path / "in").mkdir()
    picture = save_photo(tmp_path / "p.png", 4, 4).read_bytes()
    for i in range(count):
        bad = i % 20 == 7
        (tmp_path / "in" / f"{i}.png").write_bytes(picture[: len(picture) // 2] if bad else picture)
    tracemalloc.start()
    done = upscale(tmp_path / "in", "-o", tmp_path / "out", "--steps", "1")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert done.code == 4
    assert done.err.count("yoda: ") == count // 20
    assert len(done.out.splitlines()) == count - count // 20
    assert peak < 40e6


def test_a_full_disk_and_a_read_only_folder_are_refused(upscale, folder, tmp_path, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    done = upscale(folder, "-o", tmp_path / "out")
    assert done.code == 7
    assert "the disk of" in done.err
    monkeypatch.undo()
    (tmp_path / "file").write_text("x")
    assert upscale(folder, "-o", tmp_path / "file").code == 2


def test_the_fields_of_a_json_line_are_those_of_the_docs(upscale, folder):
    page = (Path(__file__).parents[3] / "docs" / "folders.md").read_text(encoding="utf-8")
    section = page.split("## For programs")[1]
    record = json.loads(upscale(folder / "a.png", "--json", "-q").out)
    assert [f"`{name}`" in section for name in record] == [True] * len(record)
    bent = json.loads(upscale(folder / "a.png", "--json", "-q", "--budget", "0.5").out)
    assert set(bent["budget"]) == {"exponent", "weight", "forecast_share"}


@pytest.mark.slow
def test_a_picture_that_kills_its_worker_fails_alone(folder, tmp_path, tiny_checkpoint):
    run = f"""
import os, sys
sys.argv = ["yoda"]
from yoda_cli.upscaling.batch import processes
read = processes.read
def deadly(item, stream=None):
    if item.source.name == "b.png":
        os._exit(9)
    return read(item, stream)
processes.read = deadly
if __name__ == "__main__":
    from yoda_cli.cli import run
    sys.exit(run(["upscale", {str(folder)!r}, "-r", "-o", {str(tmp_path / "out")!r}, "-j", "2",
                  "--model", {str(tiny_checkpoint)!r}, "--exact"]))
"""
    (tmp_path / "run.py").write_text(run)
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("a worker died twice on") == 1
    assert set(files_of(tmp_path / "out")) == {"a.png", "deep/c.png", "deep/er/d.png"}


def test_what_nobody_foresaw_fails_one_picture_and_the_rest_goes_on(yoda, tmp_path, monkeypatch):
    from yoda_cli.upscaling import picture as upscaling

    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(3):
        save_photo(folder / f"{index}.png", 8, 8 + index, seed=index)
    there = upscaling.upscale_tensor

    def breaks(lr, *rest, **named):
        if lr.shape[-1] == 9:
            raise ZeroDivisionError("a bug")
        return there(lr, *rest, **named)

    monkeypatch.setattr(upscaling, "upscale_tensor", breaks)
    done = yoda("upscale", folder, "-o", tmp_path / "out")
    assert done.code == 4
    assert "1.png: internal error: ZeroDivisionError: a bug" in done.err
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["0.png", "2.png"]


@pytest.mark.parametrize("stage", ["read", "write", "make_in_parts"])
def test_a_surprise_in_any_stage_is_that_picture_s_alone(yoda, tmp_path, monkeypatch, stage):
    from yoda_cli.upscaling.batch import local as batch

    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(3):
        save_photo(folder / f"{index}.png", 8, 8, seed=index)
    there = getattr(batch, stage)

    def breaks(item, *rest, **how):
        if item.source.name == "1.png":
            raise ZeroDivisionError("a bug")
        return there(item, *rest, **how)

    monkeypatch.setattr(batch, stage, breaks)
    extra = ["--stream"] if stage == "make_in_parts" else []
    done = yoda("upscale", folder, "-o", tmp_path / "out", *extra)
    assert done.code == 4
    assert "1.png: internal error: ZeroDivisionError: a bug" in done.err
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["0.png", "2.png"]


def test_a_size_may_be_a_length_and_each_picture_gets_its_own_factor(yoda, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    save_photo(folder / "wide.png", 10, 20)
    save_photo(folder / "tall.png", 20, 10)

    def sizes(*arguments):
        done = yoda("upscale", folder, "-o", tmp_path / "out", "--fidelity", 1, *arguments)
        assert done.code == 0, done.err
        found = {}
        for name in ("wide", "tall"):
            with Image.open(tmp_path / "out" / f"{name}.png") as image:
                found[name] = image.size
        return found

    assert sizes("--width", 50) == {"wide": (50, 25), "tall": (50, 100)}
    assert sizes("--height", 33) == {"wide": (66, 33), "tall": (16, 33)}
    assert sizes("--short-side", 30) == {"wide": (60, 30), "tall": (30, 60)}
    assert sizes("--min-size", 30) == {"wide": (80, 40), "tall": (40, 80)}
    assert sizes("--min-size", 70) == {"wide": (140, 70), "tall": (70, 140)}
    plan = yoda("upscale", folder, "-o", tmp_path / "new", "--width", 50, "--dry-run", "--json")
    records = [json.loads(line) for line in plan.out.splitlines()]
    assert {(r["width"], r["height"]) for r in records} == {(50, 25), (50, 100)}
    beside = yoda("upscale", folder, "--width", 50, "--fidelity", 1)
    assert all("in_general_w50" in line for line in beside.out.splitlines())
    for wrong in (("--width", 50, "--scale", 2), ("--width", 0), ("--height", 5, "--width", 5)):
        assert yoda("upscale", folder, *wrong).code == 2
    assert yoda("upscale", folder / "wide.png", "--width", 2000).code == 2  # a factor of 100
