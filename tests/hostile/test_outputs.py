"""No command ever loses a file: what may be replaced, and what is refused before any work."""

import json
import os
import stat
from pathlib import Path

import pytest
from commands import started, wait_until
from fakes import save_photo
from PIL import Image


@pytest.fixture
def bench(yoda, tiny_checkpoint, tmp_path):
    """A benchmark of one small pair; its folder is ``tmp_path / "set"``."""
    (tmp_path / "set").mkdir()
    save_photo(tmp_path / "set" / "hr.png", 32, 32)

    def call(*arguments):
        return yoda("bench", "--dataset", tmp_path / "set", "--model", tiny_checkpoint, "--peer",
                    "bicubic", "--metric", "psnr", "-q", *arguments)  # fmt: skip

    return call


@pytest.fixture
def picture(tmp_path):
    return save_photo(tmp_path / "in.png", 9, 13)


def snapshot(folder):
    """Every name below a folder: what kind of file it is, and its bytes where it has any."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        data = path.read_bytes() if stat.S_ISREG(mode) else b""
        found[str(path.relative_to(folder))] = (stat.S_IFMT(mode), data)
    return found


# --- an input is never an output, however it is written


def test_an_output_that_is_another_input_is_refused_before_any_work(upscale, tmp_path):
    first = save_photo(tmp_path / "a.png", 8, 9)
    second = save_photo(tmp_path / "a_tiny_x4.png", 8, 9, seed=1)
    before = second.read_bytes()
    done = upscale(first, second, "--overwrite")
    assert done.code == 4
    assert "a_tiny_x4.png is an input of this run" in done.err
    assert second.read_bytes() == before
    assert (tmp_path / "a_tiny_x4_tiny_x4.png").is_file()


def test_results_in_a_folder_are_not_written_over_as_inputs_of_the_next_run(upscale, tmp_path):
    save_photo(tmp_path / "a.png", 8, 9)
    assert upscale(tmp_path / "*.png").code == 0
    before = (tmp_path / "a_tiny_x4.png").read_bytes()
    assert upscale(tmp_path / "*.png", "--seed", 1).code == 4
    assert (tmp_path / "a_tiny_x4.png").read_bytes() == before


@pytest.mark.parametrize("spelling", ["link", "hard link", "dots", "linked folder"])
def test_an_input_is_known_by_any_of_its_names(upscale, tmp_path, spelling):
    (tmp_path / "deep").mkdir()
    first = save_photo(tmp_path / "a.png", 8, 9)
    second = save_photo(tmp_path / "deep" / "b.png", 8, 9, seed=1)
    before = second.read_bytes()
    if spelling == "link":
        target = tmp_path / "c.png"
        target.symlink_to(second)
    elif spelling == "hard link":
        target = tmp_path / "c.png"
        target.hardlink_to(second)
    elif spelling == "dots":
        target = tmp_path / "deep" / ".." / "deep" / "b.png"
    else:
        (tmp_path / "other").symlink_to(tmp_path / "deep")
        target = tmp_path / "other" / "b.png"
    done = upscale(first, "-o", target, "--attention", second, "--overwrite")
    assert done.code == 7, done.err
    assert second.read_bytes() == before
    assert target.read_bytes() == before


@pytest.mark.parametrize("option", ["--attention", "--files-from", "--registry"])
def test_whatever_file_an_option_names_is_an_input(upscale, tmp_path, picture, option):
    named = tmp_path / "named.html"
    if option == "--attention":
        Image.new("L", (13, 9), 200).save(named, "PNG")
    else:
        named.write_text(f"{picture}\n" if option == "--files-from" else "")
    before = snapshot(tmp_path)
    done = upscale(picture, option, named, "--report", named, "--overwrite")
    assert done.code == 7, done.err
    assert "is an input of this run" in done.err
    assert snapshot(tmp_path) == before


def test_the_checkpoint_is_an_input(yoda, tmp_path, picture, tiny_checkpoint):
    model = tmp_path / "model.safetensors"
    model.write_bytes(tiny_checkpoint.read_bytes())
    done = yoda("upscale", picture, "--model", model, "--report", model, "--overwrite")
    assert done.code == 7, done.err
    assert model.read_bytes() == tiny_checkpoint.read_bytes()


# --- two outputs never share a name


def test_a_report_is_never_the_result(upscale, picture, tmp_path):
    both = tmp_path / "both.png"
    done = upscale(picture, "-o", both, "--report", tmp_path / "." / "both.png")
    assert done.code == 7, done.err
    assert not both.exists()


def test_a_report_is_never_the_result_beside_its_input(upscale, picture, tmp_path):
    done = upscale(picture, "--report", tmp_path / "in_tiny_x4.png", "--overwrite")
    assert done.code == 7, done.err
    assert not (tmp_path / "in_tiny_x4.png").exists()


def test_a_dump_never_holds_the_result(upscale, picture, tmp_path):
    (tmp_path / "d" / "in").mkdir(parents=True)
    for name in ("attention.png", "process.webp", "steps.png"):
        done = upscale(picture, "-o", tmp_path / "d" / "in" / name, "--dump", tmp_path / "d")
        assert done.code == 7, done.err
        assert list((tmp_path / "d" / "in").iterdir()) == []


def test_two_files_of_a_benchmark_are_two_files(bench, tmp_path):
    done = bench("--csv", tmp_path / "x", "--html", tmp_path / "x")
    assert done.code == 7, done.err
    assert not (tmp_path / "x").exists()


def test_names_that_a_folder_does_not_tell_apart_are_one(upscale, tmp_path, monkeypatch):
    from yoda_cli.files import overwriting

    monkeypatch.setattr(overwriting, "folds_case", lambda folder: True)
    (tmp_path / "in").mkdir()
    for index, name in enumerate(["a.png", "A.png"]):
        save_photo(tmp_path / "in" / name, 8, 8, seed=index)
    done = upscale(tmp_path / "in", "-o", tmp_path / "out")
    assert done.code == 4
    assert "is the output of" in done.err
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


# --- what stands at an output: only regular files that are ours, or --overwrite


OPTIONS = [(), ("--overwrite",), ("--fail-existing",)]


@pytest.mark.parametrize("extra", OPTIONS)
@pytest.mark.parametrize("kind", ["fifo", "dangling link", "link", "link to a folder"])
def test_only_regular_files_are_ever_replaced(upscale, picture, tmp_path, kind, extra):
    target, away = tmp_path / "out.png", tmp_path / "away"
    if kind == "fifo":
        os.mkfifo(target)
    elif kind == "dangling link":
        target.symlink_to(away)
    elif kind == "link":
        upscale(picture, "-o", tmp_path / "ours.png")
        target.symlink_to(tmp_path / "ours.png")
    else:
        away.mkdir()
        target.symlink_to(away / ".." / "nosuch" / "x.png")
    before = snapshot(tmp_path)
    done = upscale(picture, "-o", target, *extra)
    assert done.code == 7, done.err
    assert snapshot(tmp_path) == before


def test_a_device_is_never_replaced(upscale, picture, tmp_path):
    if os.geteuid() == 0:
        os.mknod(tmp_path / "null.png", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        target = tmp_path / "null.png"
    else:
        target = "/dev/null"
    before = os.stat(target)  # noqa: PTH116
    done = upscale(picture, "-o", target, "--overwrite", "--format", "png")
    assert done.code == 7, done.err
    assert "no regular file" in done.err
    assert os.stat(target).st_ino == before.st_ino  # noqa: PTH116


def test_what_appears_during_the_run_is_judged_again(upscale, picture, tmp_path, monkeypatch):
    from yoda_cli.upscaling import picture as room

    target = tmp_path / "out.png"
    compute = room.upscale_tensor

    def meanwhile(*arguments, **options):
        target.write_bytes(b"precious")
        return compute(*arguments, **options)

    monkeypatch.setattr(room, "upscale_tensor", meanwhile)
    for extra in ((), ("--fail-existing",)):
        done = upscale(picture, "-o", target, *extra)
        assert done.code == 7, done.err
        assert target.read_bytes() == b"precious"
        target.unlink()


def test_the_manifest_is_no_way_out_of_the_folder(upscale, tmp_path):
    (tmp_path / "in").mkdir()
    save_photo(tmp_path / "in" / "a.png", 6, 6)
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("mine\n")
    (tmp_path / "out" / ".yoda-manifest.jsonl").symlink_to(tmp_path / "precious")
    assert upscale(tmp_path / "in", "-o", tmp_path / "out").code == 7
    assert (tmp_path / "precious").read_text() == "mine\n"
    (tmp_path / "out" / ".yoda-manifest.jsonl").unlink()
    os.mkfifo(tmp_path / "out" / ".yoda-manifest.jsonl")  # to read it would be to wait for ever
    assert upscale(tmp_path / "in", "-o", tmp_path / "out").code == 7


# --- the other commands


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_a_benchmark_replaces_its_own_files_and_no_others(bench, tmp_path, option):
    target = tmp_path / "file"
    target.write_bytes(b"mine")
    done = bench(option, target)
    assert done.code == 7, done.err
    assert "--overwrite" in done.err
    assert done.out == ""  # before any work
    assert target.read_bytes() == b"mine"
    assert bench(option, target, "--overwrite").code == 0
    assert bench(option, target).code == 0  # now it is ours
    hr = tmp_path / "set" / "hr.png"
    before = hr.read_bytes()
    assert bench(option, hr, "--overwrite").code == 7
    assert hr.read_bytes() == before
    assert bench(option, tmp_path / "no" / "x").code == 7
    os.mkfifo(tmp_path / "pipe")
    assert bench(option, tmp_path / "pipe", "--overwrite").code == 7


def test_charts_replace_their_own_and_no_others(bench, tmp_path):
    plots = tmp_path / "plots"
    assert bench("--plots", plots).code == 0
    assert bench("--plots", plots).code == 0
    chart = plots / "set_area.svg"
    chart.write_text("<svg>mine</svg>")
    assert bench("--plots", plots).code == 7
    assert chart.read_text() == "<svg>mine</svg>"
    assert bench("--plots", plots, "--overwrite").code == 0
    (tmp_path / "file").write_text("mine")
    assert bench("--plots", tmp_path / "file", "--overwrite").code == 7


def test_a_dump_replaces_a_dump_and_nothing_else(upscale, picture, tmp_path):
    run = (picture, "-o", tmp_path / "o.png", "--dump", tmp_path / "d")
    assert upscale(*run).code == 0
    assert upscale(*run, "--seed", 1).code == 0
    for name in ("attention.png", "steps.json", "steps.csv", "process.webp", "pass2_mask_a.png"):
        mine = tmp_path / "d" / "in" / name
        mine.write_bytes(b"mine")
        (tmp_path / "o.png").unlink()
        done = upscale(*run)
        assert done.code == 7, done.err
        assert mine.read_bytes() == b"mine"
        assert not (tmp_path / "o.png").exists()  # before any work
        if name != "pass2_mask_a.png":
            assert upscale(*run, "--overwrite").code == 0
        mine.unlink()
    (tmp_path / "d" / "in" / "notes.txt").write_text("not in the way")
    assert upscale(*run).code == 0


def test_what_is_dumped_never_goes_through_a_link(upscale, picture, tmp_path):
    (tmp_path / "away").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "in").symlink_to(tmp_path / "away")
    done = upscale(picture, "-o", tmp_path / "o.png", "--dump", tmp_path / "d")
    assert done.code == 7, done.err
    assert list((tmp_path / "away").iterdir()) == []


def test_a_map_is_never_an_input_of_its_run(yoda, tiny_checkpoint, tmp_path):
    first = save_photo(tmp_path / "a.png", 8, 9)
    second = save_photo(tmp_path / "a_attention.png", 8, 9, seed=1)
    before = second.read_bytes()
    done = yoda("attention", first, second, "--model", tiny_checkpoint, "--save-map", "--overwrite")
    assert done.code == 4, done.err
    assert second.read_bytes() == before
    painted = tmp_path / "b_attention.png"
    Image.new("L", (9, 8), 99).save(painted)
    save_photo(tmp_path / "b.png", 8, 9)
    before = painted.read_bytes()
    done = yoda("attention", tmp_path / "b.png", "--model", tiny_checkpoint, "--save-map",
                "--overwrite", "--source", painted)  # fmt: skip
    assert done.code == 7, done.err
    assert painted.read_bytes() == before


def test_a_numeric_map_replaces_its_own(yoda, tiny_checkpoint, tmp_path):
    path = save_photo(tmp_path / "a.png", 8, 9)
    command = ("attention", path, "--model", tiny_checkpoint, "--save-map", "--format", "npy")
    (tmp_path / "a_attention.npy").write_bytes(b"mine")
    assert yoda(*command).code == 7
    assert yoda(*command, "--overwrite").code == 0


def test_maps_of_two_inputs_of_one_name_do_not_replace_each_other(yoda, tiny_checkpoint, tmp_path):
    paths = []
    for index, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        paths.append(save_photo(tmp_path / name / "x.png", 8, 9, seed=index))
    done = yoda("attention", *paths, "--model", tiny_checkpoint, "--save-map", "--overwrite",
                "-o", tmp_path / "out")  # fmt: skip
    assert done.code == 4
    assert "is the output of" in done.err


def test_training_never_begins_in_a_folder_of_somebody_else(yoda, tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(3):
        save_photo(tmp_path / "photos" / f"{index}.png", 64, 64, seed=index)
    out = tmp_path / "out"
    out.mkdir()
    (out / "best.safetensors").write_bytes(b"mine")
    (out / "log.jsonl").write_bytes(b"mine")
    before = snapshot(tmp_path)
    done = yoda("train", "--data", tmp_path / "photos", "-o", out, "--steps", 1, "--device", "cpu")
    assert done.code == 7, done.err
    assert snapshot(tmp_path) == before
    done = yoda("train", "--data", tmp_path / "photos", "-o", tmp_path / "photos", "--steps", 1)
    assert done.code == 7, done.err
    assert snapshot(tmp_path) == before


# --- the manifest knows the bytes that were decoded


def test_an_input_replaced_during_a_run_is_done_again(tmp_path, tiny_checkpoint, upscale):
    (tmp_path / "in").mkdir()
    source = save_photo(tmp_path / "in" / "a.png", 60, 60)
    other = save_photo(tmp_path / "b.png", 60, 60, seed=5)
    common = (tmp_path / "in", "-o", tmp_path / "out", "--exact")
    with started("upscale", *common, "--model", tiny_checkpoint, "--steps", 100) as run:
        assert wait_until(lambda: b" to compute" in run.stderr.readline())
        other.replace(source)  # it was decoded before the first call was planned
        run.communicate(timeout=60)
    assert run.returncode == 0
    first = (tmp_path / "out" / "a.png").read_bytes()
    again = upscale(*common, "--steps", 100)
    assert len(again.out.splitlines()) == 1, again.err
    assert (tmp_path / "out" / "a.png").read_bytes() != first
    assert upscale(*common, "--steps", 100).out == ""


@pytest.mark.parametrize("extra", [(), ("--stream",), ("-j", "2"), ("--skip-existing",)])
def test_the_manifest_holds_the_hash_of_what_was_decoded(upscale, tmp_path, extra):
    import hashlib

    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        save_photo(tmp_path / "in" / name, 12, 16)
    done = upscale(tmp_path / "in", "-o", tmp_path / "out", "--json", *extra)
    assert done.code == 0, done.err
    digest = hashlib.sha256((tmp_path / "in" / "a.png").read_bytes()).hexdigest()
    lines = (tmp_path / "out" / ".yoda-manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["source_sha256"] for line in lines] == [digest] * 2
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [record["source_sha256"] for record in records] == [digest] * 2
    for record in records:
        result = Path(record["output"]).read_bytes()
        assert record["sha256"] == hashlib.sha256(result).hexdigest()


@pytest.mark.parametrize("reader", ["read_picture", "scan_animation", "upscale_tensor"])
def test_an_input_written_while_it_is_read_is_a_failure(upscale, tmp_path, monkeypatch, reader):
    from yoda_cli.upscaling import animation, picture

    room = picture if reader == "read_picture" else animation
    (tmp_path / "in").mkdir()
    frames = [Image.new("RGB", (9, 8), (i, 50, 90)) for i in (0, 200)]
    animated = {"save_all": True, "append_images": frames[1:]} if room is animation else {}
    source = tmp_path / "in" / "a.gif"
    frames[0].save(source, **animated)
    decode = getattr(room, reader)

    def meanwhile(*arguments, **options):
        made = decode(*arguments, **options)
        with source.open("ab") as file:
            file.write(b"more")
        return made

    monkeypatch.setattr(room, reader, meanwhile)
    done = upscale(tmp_path / "in", "-o", tmp_path / "out")
    assert done.code == 4
    assert "changed while it was read" in done.err
    assert list((tmp_path / "out").glob("*.gif")) == []
