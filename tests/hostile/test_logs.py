"""A log is a file like any other: it never harms one, and it hears what a quiet screen does not."""

import os

import pytest
from fakes import save_photo


@pytest.fixture
def upscale(yoda, tiny_checkpoint):
    return lambda *arguments: yoda("upscale", *arguments, "--model", tiny_checkpoint)


@pytest.mark.parametrize("extra", [(), ("--overwrite",)])
@pytest.mark.parametrize("name", ["in.png", "other.png", "list.txt", "link.log", "pipe", "no/x"])
def test_a_log_is_never_written_into_another_file(upscale, tmp_path, name, extra):
    source = save_photo(tmp_path / "in.png", 8, 9)
    save_photo(tmp_path / "other.png", 8, 9)
    (tmp_path / "list.txt").write_text("mine\n")
    (tmp_path / "link.log").symlink_to(tmp_path / "list.txt")
    os.mkfifo(tmp_path / "pipe")  # to open it would be to wait for ever
    files = ("in.png", "other.png", "list.txt")
    before = [(tmp_path / each).read_bytes() for each in files]
    done = upscale(source, "-o", tmp_path / "out.png", "--log-file", tmp_path / name, *extra)
    assert (done.code, done.err.count("\n")) == (7, 1), done.err
    assert [(tmp_path / each).read_bytes() for each in files] == before
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("option", ["-o", "--report"])
def test_a_log_is_never_another_output(upscale, tmp_path, option):
    source, both = save_photo(tmp_path / "in.png", 8, 9), tmp_path / "both.png"
    done = upscale(source, option, both, "--log-file", both, "--overwrite")
    assert done.code == 7, done.err
    assert "is the output of the log already" in done.err


def test_a_log_goes_on_where_it_was(upscale, tmp_path):
    source, log = save_photo(tmp_path / "in.png", 8, 9), tmp_path / "log"
    log.touch()
    for _ in range(2):
        assert upscale(source, "--log-file", log).code == 0
    assert log.read_text().count("36×32") == 2


def test_a_quiet_run_is_logged_all_the_same(upscale, tmp_path):
    log = tmp_path / "log"
    (tmp_path / "in").mkdir()
    for name in "ab":
        save_photo(tmp_path / "in" / f"{name}.png", 8, 9)
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    done = upscale(tmp_path / "in", "-o", tmp_path / "out", "-q", "--log-file", log)
    assert (done.code, done.err.count("\n")) == (4, 1), done.err
    said = log.read_text()
    for words in ("a.png: 36×32", "b.png: 36×32", "c.png", "2 made, 0 there already, 1 failed"):
        assert words in said
    done = upscale(tmp_path / "in", "-o", tmp_path / "out", "-q", "--dry-run", "--log-file", log)
    assert done.err.count("\n") == 1
    assert "nothing was written" in log.read_text()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a full disk at hand")  # noqa: PTH110
def test_a_log_that_cannot_be_written_costs_no_work(upscale, tmp_path, monkeypatch):
    from yoda_cli.cli import _log

    full = open("/dev/full", "w")  # noqa: SIM115, PTH123
    monkeypatch.setattr(_log.LogFile, "_open", lambda self: full)
    source = save_photo(tmp_path / "in.png", 8, 9)
    done = upscale(source, "-o", tmp_path / "out.png", "--log-file", tmp_path / "log")
    assert done.code == 7
    assert (tmp_path / "out.png").is_file()
    assert "Traceback" not in done.err
    assert done.err.count("cannot write the log") == 1
