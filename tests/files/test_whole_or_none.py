"""A file is written whole or not at all; what a killed writer left is swept."""

import os
import subprocess
import sys
import threading
import time

import pytest
from cases import NAMES
from fakes import photo
from PIL import Image

from yoda_cli.errors import OutputError
from yoda_cli.files import MACHINE, STALE_SECONDS, temporary_beside
from yoda_cli.images import (
    Picture,
    sweep_temporaries,
    write_atomically,
    write_picture,
)


@pytest.mark.parametrize("name", NAMES)
def test_temporaries_have_names_that_fit_and_do_not_repeat(tmp_path, name):
    first, second = (temporary_beside(tmp_path / name) for _ in range(2))
    assert first != second
    assert first.parent == tmp_path
    assert len(os.fsencode(first.name)) <= 255
    assert first.name.startswith(f".{name[:20]}")
    first.write_bytes(b"")


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "encode"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [False, True])
def test_a_write_that_fails_anywhere_leaves_things_as_they_were(
    tmp_path, monkeypatch, call, error, existing
):
    def fail(*_, **__):
        raise error

    path = tmp_path / "out.png"
    if existing:
        path.write_bytes(b"old")
    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif call == "replace":
        monkeypatch.setattr(type(path), "replace", fail)
        # A new file gets its name by a link, or by a rename where there are no links.
        monkeypatch.setattr(type(path), "hardlink_to", fail)
    elif call == "encode":
        monkeypatch.setattr(Image.Image, "save", fail)
    else:
        opened = type(path).open

        def halfway(self, mode="r"):
            file = opened(self, mode, buffering=0)
            file.write(b"half")
            monkeypatch.setattr(os, "fsync", fail)
            return file

        monkeypatch.setattr(type(path), "open", halfway)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write_picture(path, Picture(photo(4, 4)), kind="PNG")
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
        assert call == "encode" or str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    assert not existing or path.read_bytes() == b"old"


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    picture = Picture(photo(4, 4))
    for name in ("nosuch/a.png", "file/a.png", "folder.png", "x" * 256 + ".png", "nul\0.png"):
        with pytest.raises(OutputError, match=r"cannot write|is a folder") as caught:
            write_picture(tmp_path / name, picture, kind="PNG")
        assert str(caught.value).isprintable()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_link_is_neither_replaced_nor_followed(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    link = tmp_path / "out.png"
    link.symlink_to("precious")
    with pytest.raises(OutputError, match="is a link"):
        write_picture(link, Picture(photo(4, 4)), kind="PNG")
    assert link.is_symlink()
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_killed_writer_leaves_no_half_file_and_its_temporary_is_swept(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from yoda_cli import files
os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(Path(sys.argv[1]), b"x" * 1000)
"""
    target = tmp_path / "out.png"
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -9
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1
    assert sweep_temporaries(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_sweeping_spares_living_processes_other_machines_and_everything_else(tmp_path):
    mine = temporary_beside(tmp_path / "a\nb.png")
    parent = mine.name.replace(str(os.getpid()), str(os.getppid()))
    other = mine.name.replace(MACHINE, "0" * 8)
    stale = other.replace("a\nb", "old")
    earlier = f".a.yoda-{MACHINE}-{os.getpid()}-000000000.tmp"
    spared = [mine.name, parent, other, "a.tmp", ".yoda-1.tmp", "photo.png"]
    for name in [*spared, stale, earlier]:
        (tmp_path / name).write_bytes(b"")
    old = time.time() - STALE_SECONDS - 1
    os.utime(tmp_path / stale, (old, old))
    assert sweep_temporaries(tmp_path) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(spared)
    assert sweep_temporaries(tmp_path / "nosuch") == 0


def test_writers_of_one_name_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "out"
    contents = [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(path, c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]
