"""Closed, full and broken descriptors: the work is done, and the exit code says what was lost."""

import os
import subprocess

import pytest
from commands import started, through_shell
from fakes import save_photo
from PIL import Image

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(3):
        save_photo(tmp_path / "in" / f"{index}.png", 6, 7, seed=index)
    return tmp_path / "in"


@pytest.fixture
def shell(folder, tmp_path, tiny_checkpoint):
    """A run over a folder with its descriptors as a shell's line says."""

    def call(line, *extra):
        return through_shell(
            line, "upscale", folder, "-o", tmp_path / "out", "--model", tiny_checkpoint, *extra,
            capture_output=True, text=True,
        )  # fmt: skip

    return call


def made(tmp_path):
    """How many whole results there are."""
    found = sorted((tmp_path / "out").glob("*.png"))
    for path in found:
        with Image.open(path) as image:
            image.load()
    return len(found)


slow = pytest.mark.slow
CLOSED = [
    (">&- 2>&- <&-", "1"), ("2>/dev/full", "1"), pytest.param(">&- 2>&- <&-", "2", marks=slow),
    pytest.param(">&-", "1", marks=slow), pytest.param("2>&-", "1", marks=slow),
    pytest.param("<&-", "1", marks=slow), pytest.param("<&- >&-", "1", marks=slow),
]  # fmt: skip


@pytest.mark.parametrize(("line", "jobs"), CLOSED)
def test_closed_descriptors_keep_no_work_from_being_done(shell, tmp_path, line, jobs):
    done = shell(f'"$@" {line}', "-j", jobs)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    assert made(tmp_path) == 3


@pytest.mark.parametrize(
    "extra", [(), pytest.param(("--json",), marks=slow), pytest.param(("-j", "2"), marks=slow)]
)
def test_a_full_standard_output_is_code_7_and_the_folder_goes_on(shell, tmp_path, extra):
    done = shell('"$@" >/dev/full', *extra)
    assert done.returncode == 7, done.stderr
    assert done.stderr.count("cannot write to standard output: No space left on device") == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "internal error" not in done.stderr
    assert made(tmp_path) == 3


@slow
def test_a_reader_that_goes_away_ends_no_folder(shell, tmp_path):
    done = shell('set -o pipefail; "$@" | head -n 0; exit ${PIPESTATUS[0]}')
    assert done.returncode == 7, done.stderr
    assert "cannot write to standard output: Broken pipe" in done.stderr
    assert made(tmp_path) == 3


@pytest.mark.parametrize(
    "command", [("--help",), ("--version",), ("weights", "list"), ("upscale", "--help"),
                pytest.param(("doctor",), marks=slow)]
)  # fmt: skip
def test_every_command_says_that_standard_output_is_full(command):
    done = through_shell('"$@" >/dev/full', *command, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    *before, last = done.stderr.splitlines()
    assert last == "yoda: cannot write to standard output: No space left on device"
    assert len(before) == (2 if command == ("weights", "list") else 0)  # its marks explained
    closed = through_shell('"$@" >&- 2>&-', *command, capture_output=True, text=True)
    assert closed.returncode == 0


def test_a_picture_for_a_standard_output_that_cannot_take_it_is_lost_and_said(
    folder, tiny_checkpoint
):
    command = ("upscale", folder / "0.png", "-o", "-", "--model", tiny_checkpoint)
    for line in ('"$@" >/dev/full', '"$@" >&-'):
        done = through_shell(line, *command, capture_output=True, text=True)
        assert done.returncode == 7, (line, done.stderr)
        assert done.stderr.count("cannot write to standard output") == 1


def test_a_standard_input_that_is_closed_is_an_empty_picture(folder, tiny_checkpoint):
    command = ("upscale", "-", "-o", "-", "--model", tiny_checkpoint)
    done = through_shell('"$@" <&-', *command, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert "empty" in done.stderr


@pytest.mark.slow
def test_no_picture_takes_the_place_of_a_closed_descriptor(folder, tmp_path, tiny_checkpoint):
    """The first file that is opened gets the lowest number, and what is said would go into it."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = through_shell(
        '"$@" <&- >&- 2>&-', "upscale", folder, "--dump", tmp_path / "d", "--model",
        tiny_checkpoint, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@slow
def test_a_terminal_that_went_away_ends_no_folder(folder, tmp_path, tiny_checkpoint):
    """Writing to it is an error of input and output then."""
    import pty

    ours, theirs = pty.openpty()
    with started(
        "upscale", folder, "-o", tmp_path / "out", "--model", tiny_checkpoint,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
    ) as run:  # fmt: skip
        os.close(theirs)
        os.close(ours)
        assert run.wait(60) == 0
    assert made(tmp_path) == 3


@slow
def test_a_bad_input_and_a_full_output_say_both(folder, tmp_path, tiny_checkpoint):
    (folder / "bad.png").write_bytes(b"no picture")
    done = through_shell(
        '"$@" >/dev/full', "upscale", folder, "-o", tmp_path / "out", "--model", tiny_checkpoint,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 4  # the graver of the two: a picture is missing
    assert "bad.png" in done.stderr
    assert "cannot write to standard output" in done.stderr
