"""The page of errors says what the program says: every row is met by a command, or by its cause."""

import errno
import os
import re
from pathlib import Path

import pytest
from fakes import save_photo

from yoda_cli import errors
from yoda_cli.cli import report
from yoda_cli.files import write_atomically
from yoda_cli.weights import Cache, load_registry

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
ROWS = re.findall(r"^\| `([^`]+)` \| ", PAGE.read_text("utf-8"), flags=re.MULTILINE)


@pytest.fixture
def place(tmp_path, monkeypatch, own_cache):
    """A folder with pictures, good and bad, where nothing is downloaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path / "cache"))
    whole = save_photo(tmp_path / "photo.png", 40, 48).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    save_photo(tmp_path / "square.png", 40, 40)
    save_photo(tmp_path / "mine.png", 8, 8)
    (tmp_path / "empty").mkdir()
    return tmp_path


def damaged_download():
    cache, entry = Cache.default(), load_registry().files["yunet_n_dynamic.onnx"]
    cache.prepare()
    cache.path(entry).write_bytes(b"changed")
    cache.trusted(entry)


def without_room(monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    write_atomically(Path("out.png"), b"x")


def cause(error):
    def act(monkeypatch):
        raise error

    return act


#: What is done for each row: the words after ``yoda``, or a function.
ACTS = {
    "no such file: …": "upscale nosuch.png",
    "addresses are not fetched; download the picture first": "upscale https://example.com/a.png",
    "no pictures in …; -r looks into its folders": "upscale empty",
    "unknown model …; did you mean …?": "upscale photo.png --model genral",
    "… exists and yoda did not make it": "upscale photo.png -o mine.png",
    "…: that is … times the … pixels there are; at most 16 times":
        "upscale photo.png --width 9000",
    "no known picture format": "upscale photo.png -o x.foo",
    "… is damaged or not a picture of a known format": "upscale text.png",
    "… is damaged: …; --accept-damaged reads what is there": "upscale cut.png",
    "… would become … pixels; the bound is …": "upscale photo.png --max-pixels 100",
    "… of different proportions cannot be laid over each other": "compare photo.png square.png",
    "… is not installed: …": lambda monkeypatch: errors.need("no_such_module", "diffbir"),
    "… is not in the cache and yoda is offline": "upscale photo.png --model photo --offline",
    "… is damaged: its SHA-256 is …": lambda monkeypatch: damaged_download(),
    "… would be downloaded, and without a terminal nobody can be asked":
        "upscale photo.png --model photo",
    "nothing was downloaded": None,  # asked at a terminal: test_downloads.py
    "no device cuda: …": "upscale photo.png --device cuda",
    "out of memory …": cause(MemoryError()),
    "model … does not read --…": "upscale photo.png --prompt x",
    "nothing matches …": "upscale q*.png",
    "cannot write …: No space left on device": without_room,
    "interrupted: …": None,  # test_fates.py
    "internal error: …": cause(RuntimeError("x")),
}  # fmt: skip


def test_every_row_of_the_page_is_tried():
    assert list(ACTS) == ROWS


@pytest.mark.parametrize("row", [row for row, act in ACTS.items() if act])
def test_a_row_of_the_page_is_what_is_said(yoda, place, monkeypatch, capfd, row):
    import torch

    if row.startswith("no device cuda") and torch.cuda.is_available():
        pytest.skip("there is one")
    act = ACTS[row]
    if isinstance(act, str):
        done = yoda(*act.split())
        assert done.code not in (0, 1), done.err
        said = done.err
    else:
        with pytest.raises(Exception) as raised:  # noqa: PT011
            act(monkeypatch)
        report(raised.value)
        said = capfd.readouterr().err
    words = ".+".join(map(re.escape, (part.strip() for part in row.split("…"))))
    assert re.search(words.removeprefix(".+"), said), said
