"""Names of anyone's making: shown without harm, kept to their folder, and found again."""

import csv
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from commands import at_terminal
from fakes import fake_model, save_photo

from yoda_cli.config import UpscaleOptions
from yoda_cli.upscaling.resolve import resolve

ESCAPE = "\x1b]0;owned\x07\x1b[31mred"
NOT_UTF8 = os.fsdecode(b"caf\xe9")
CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]")
OURS = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|[\r\n\t]")  # what a progress bar may send
HOSTILE = re.compile(rb"\x1b\]|\x07|\x1b\[31mred|\xe2\x80\xae")


def document(report):
    text = report.read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', text, flags=re.DOTALL).group(1))


@pytest.fixture
def hostile(tmp_path):
    """A good and a bad picture whose names hold escape sequences."""
    (tmp_path / "in").mkdir()
    save_photo(tmp_path / "in" / f"good{ESCAPE}\u202e.png", 6, 7)
    (tmp_path / "in" / f"bad{ESCAPE}.png").write_bytes(b"no picture")
    return tmp_path / "in"


# --- nothing in a name reaches a terminal or a log as it is


@pytest.mark.parametrize("extra", [(), ("--dry-run",), ("--stream",), ("-q",)])
def test_no_line_to_a_log_holds_what_a_terminal_would_obey(upscale, hostile, tmp_path, extra):
    done = upscale(hostile, "-o", tmp_path / "out", *extra)
    assert done.code == 4, done.err
    assert not CONTROL.search(done.err.encode()), done.err
    assert "\\x1b]0;owned\\x07" in done.err


def test_a_pipe_gets_the_name_that_the_file_has(upscale, hostile, tmp_path):
    done = upscale(hostile, "-o", tmp_path / "out")
    assert done.out == f"{tmp_path / 'out'}/good{ESCAPE}\u202e.png\n"


def test_no_line_at_a_terminal_holds_what_it_would_obey(hostile, tmp_path, tiny_checkpoint):
    code, said = at_terminal("upscale", hostile, "-o", tmp_path / "out", "-m", tiny_checkpoint)
    assert code == 4
    assert said.count(b"owned") > 2
    assert not HOSTILE.search(said), said
    assert not CONTROL.search(OURS.sub(b"", said)), said


def test_tables_and_errors_of_other_commands_are_as_harmless(
    yoda, hostile, tmp_path, tiny_checkpoint
):
    good = next(p for p in hostile.iterdir() if p.name.startswith("good"))
    bad = next(p for p in hostile.iterdir() if p.name.startswith("bad"))
    nosuch = tmp_path / f"nosuch{ESCAPE}"
    commands = [
        ("attention", good, bad, "--model", tiny_checkpoint),
        ("metrics", good, good, "--metric", "psnr"),
        ("metrics", bad, good, "--metric", "psnr"),
        ("upscale", nosuch, "--model", tiny_checkpoint),
        ("upscale", good, "--model", f"no{ESCAPE}"),
        ("upscale", good, "--attention", f"no{ESCAPE}", "--model", tiny_checkpoint),
        ("weights", "path", f"no{ESCAPE}"),
        ("bench", "--dataset", f"no{ESCAPE}", "--model", tiny_checkpoint),
        ("train", "--data", nosuch, "-o", tmp_path / "run", "--steps", 1),
        (f"no{ESCAPE}",),
    ]
    for command in commands:
        done = yoda(*command)
        said = (done.out + done.err).encode()
        assert b"owned" in said, command
        assert not CONTROL.search(said), (command, said)


def test_without_progress_a_terminal_gets_no_escape_and_a_bar_shows_brackets(
    tmp_path, tiny_checkpoint
):
    path = save_photo(tmp_path / "[red]x[bold].png", 6, 7)
    code, said = at_terminal("upscale", path, "--model", tiny_checkpoint, "--no-progress")
    assert code == 0, said
    assert b"\x1b" not in said, said
    _, said = at_terminal("upscale", path, "--model", tiny_checkpoint, "--steps", 20)
    assert b"[red]x[bold].png" in said


@pytest.mark.parametrize("renderer", ["download", "training_line"])
def test_no_renderer_uses_a_bar_where_none_is_wanted(renderer, monkeypatch):
    import io

    from yoda_cli.cli import _render, _render_bars

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", said := Terminal())
    wanted = {"quiet": False} if renderer == "download" else {}
    module = _render_bars if renderer == "download" else _render
    with getattr(module, renderer)(bar=False, **wanted) as shown:
        if renderer == "download":
            shown.say(f"a{ESCAPE}")
            shown.progress(1, 2)
        else:
            shown.show(f"a{ESCAPE}", always=True)
    assert said.getvalue().startswith("a\\x1b]0;owned")
    assert "\x1b" not in said.getvalue()


# --- names that are not UTF-8


def test_a_report_about_a_name_that_is_not_utf_8(upscale, tmp_path):
    path = save_photo(tmp_path / f"{NOT_UTF8}.png", 6, 7)
    done = upscale(path, "-o", tmp_path / f"{NOT_UTF8}_4.png", "--report", tmp_path / "r.html")
    assert done.code == 0, done.err
    content = document(tmp_path / "r.html")
    assert content["title"] == "caf\\xe9.png"


@pytest.mark.parametrize(
    "name",
    ["-dash", "a b'c", "new\nline", ESCAPE, "$(touch x)", "~", "é", NOT_UTF8, "\\x41", "tab\t0"],
)
def test_the_command_of_a_report_names_any_file(name):
    words = resolve(UpscaleOptions(), fake_model()).command(Path(f"{name}.png"), Path(name))
    assert words.isprintable()
    said = subprocess.run(
        ["bash", "-c", f'yoda() {{ printf \'%s\\0\' "$2" "$4"; }}; {words}'], capture_output=True
    )
    found, target = said.stdout.split(b"\0")[:2]
    prefix = b"./" if name.startswith("-") else b""
    assert (found, target) == (prefix + os.fsencode(f"{name}.png"), prefix + os.fsencode(name))


def test_a_benchmark_of_names_that_are_not_utf_8(yoda, tiny_checkpoint, tmp_path):
    folder = tmp_path / NOT_UTF8
    folder.mkdir()
    save_photo(folder / f"{NOT_UTF8}.png", 32, 32)
    done = yoda("bench", "--dataset", folder, "--model", tiny_checkpoint, "--peer", "bicubic",
                "--metric", "psnr", "--csv", tmp_path / "a.csv", "--html", tmp_path / "a.html",
                "--plots", tmp_path / "plots")  # fmt: skip
    assert done.code == 0, done.err
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["picture"] for row in rows} == {"caf\\xe9"}
    assert "caf" in document(tmp_path / "a.html")["rows"]["rows"][0][1]


def test_maps_and_metrics_of_names_that_are_not_utf_8(yoda, tiny_checkpoint, tmp_path):
    path = save_photo(tmp_path / f"{NOT_UTF8}.png", 16, 16)
    done = yoda("attention", path, "--model", tiny_checkpoint, "--save-map")
    assert done.code == 0, done.err
    painted = tmp_path / f"{NOT_UTF8}_attention.png"
    assert painted.is_file()
    assert yoda("metrics", path, path, "--metric", "psnr").code == 0
    for suffix in ("png", "jpg", "webp", "tif", "gif", "avif", "bmp"):
        done = yoda("upscale", path, "-o", tmp_path / f"o.{suffix}", "--attention", painted,
                    "--model", tiny_checkpoint)  # fmt: skip
        assert done.code == 0, done.err


# --- names that would lead elsewhere


@pytest.mark.parametrize("name", ["...png", "....png", "..png", ".png", "-.png"])
def test_a_dump_stays_in_its_folder(upscale, tmp_path, name):
    (tmp_path / "in").mkdir()
    path = save_photo(tmp_path / "a.png", 6, 7).rename(tmp_path / "in" / name)
    inside = tmp_path / "deep" / "d"
    done = upscale(path, "-o", tmp_path / "o.png", "--dump", inside, "--save-attention")
    assert done.code == 0, done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "in", "o.png"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["d"]
    (folder,) = inside.iterdir()
    assert (folder / "attention.png").is_file()


def test_maps_and_dumps_of_the_longest_names_fit(upscale, yoda, tiny_checkpoint, tmp_path):
    path = save_photo(tmp_path / "a.png", 6, 7).rename(tmp_path / ("x" * 251 + ".png"))
    done = yoda("attention", path, "--save-map", "--model", tiny_checkpoint)
    assert done.code == 0, done.err
    assert len(os.fsencode(done.out.strip().rsplit("/", 1)[-1])) <= 255
    (tmp_path / "a").mkdir()
    other = save_photo(tmp_path / "a" / "a.png", 6, 7).rename(tmp_path / "a" / path.name)
    (tmp_path / "out").mkdir()
    done = upscale(path, other, "--dump", tmp_path / "d", "--save-attention")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "d").iterdir())) == 2
