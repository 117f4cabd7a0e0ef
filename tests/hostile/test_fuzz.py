"""Names and options made by chance: seeded, so that a case that fails can be made again."""

import os
import random
import shutil

import pytest
import typer
from fakes import save_photo
from PIL import Image

from yoda_cli.cli import application

ALPHABETS = (
    "abcdefXYZ019", " .-_~", "äéßñøŁ", "日本語🦆", "\u202e\u200b\u0301\u2028",
    "\x1b\x07\r\n\t\x9b[]m", "%{}$`'\"\\*?&;|<>()!#=,:",
)  # fmt: skip
STEMS = ("CON", "nul", "..", "...", "-rf", "--help", ".hidden", "%2e%2e", "{stem}", "a.png", "~")
LONGEST = 255 - len("_x0.5.png") - 8  # bytes: room for what a result's name is given
SUFFIXES = (".png", ".PNG", ".bmp", ".tif")
HARMLESS = {0, 2, 3, 4, 5, 6, 7}  # never 1, which is an error of ours, nor a signal

WORDS = (
    "", "0", "1", "-1", "2", "0.5", "1e9", "-0.0", "nan", "inf", "1_000", "٣", "0x10", "4x", "auto",
    "none", "general", "genral", "face", "learned", "edge", "ddim", "x", "a.png", "missing.png",
    "/dev/null", "..", ".", "in", "--", "\x1b[31m", "🦆", "{stem}", "{nosuch}", "%s", "\udcff",
    "png", "gif", "9" * 400, "a" * 5000, "1,2,3", "5,10", "0.1,x", "fp32", "cpu", "cuda:9", "ncnn",
)  # fmt: skip
#: Tried apart: they start processes, read other files or compile for a minute.
NEVER = {"--engine", "--jobs", "-j", "--registry", "--compile", "--debug", "--help", "--help-all"}


def name_of(rng):
    """A name of at most ``LONGEST`` bytes before its suffix, some of them in no encoding."""
    if rng.random() < 0.15:
        stem = rng.choice(STEMS).encode()
    else:
        letters = [rng.choice(rng.choice(ALPHABETS)) for _ in range(rng.choice((1, 3, 9, 40, 250)))]
        stem = "".join(letters).encode()
    if rng.random() < 0.1:
        at = rng.randrange(len(stem) + 1)
        stem = stem[:at] + bytes([rng.randrange(128, 256)]) + stem[at:]
    stem = stem.replace(b"/", b"").replace(b"\0", b"")[:LONGEST] or b"x"
    return stem + rng.choice(SUFFIXES).encode()


def folder_of_names(folder, count, seed):
    """A folder of ``count`` small pictures, no two of whose results have one name."""
    rng, seen = random.Random(seed), set()
    folder.mkdir()
    originals = {s: save_photo(folder.parent / f"one{s}", 4, 6) for s in SUFFIXES}
    while len(seen) < count:
        name = name_of(rng)
        path = folder / os.fsdecode(name)
        if path.name.startswith(".") or (key := path.stem.casefold()) in seen:
            continue
        seen.add(key)
        shutil.copy(originals[path.suffix], path)
    return names_in(folder)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".yoda"))


def check_names(upscale, tmp_path, count, seed):
    names = folder_of_names(tmp_path / "in", count, seed)
    arguments = (tmp_path / "in", "-o", tmp_path / "out", "--scale", "0.5", "--format", "png")
    done = upscale(*arguments)
    assert done.code == 0, done.err
    made = names_in(tmp_path / "out")
    assert len(made) == len(names)
    for name in made:
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == (3, 2)
    assert names_in(tmp_path / "in") == names, "inputs stay as they are"
    spoken = done.err.replace("\n", "")  # stdout is a pipe: there a name is what it is
    assert not [c for c in spoken if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2028"]
    again = upscale(*arguments)
    assert again.code == 0
    assert f"{len(names)} there already" in again.err or f"{len(names)} of" in again.err


def options_of_upscale():
    """(spelling, whether a value follows) of every option of ``yoda upscale``."""
    command = typer.main.get_command(application("upscale")).commands["upscale"]
    return [
        (spelling, not parameter.is_flag)
        for parameter in command.params
        if parameter.param_type_name == "option"
        for spelling in (*parameter.opts, *parameter.secondary_opts)
        if spelling not in NEVER
    ]


def check_options(yoda, tmp_path, monkeypatch, count, seed):
    monkeypatch.chdir(tmp_path)
    picture = save_photo(tmp_path / "a.png", 5, 6).read_bytes()
    (tmp_path / "in").mkdir()
    known = options_of_upscale()
    assert len(known) > 50
    made = application("upscale")  # once: reading its signature takes longer than a case
    monkeypatch.setattr("yoda_cli.cli.application_for", lambda arguments: made)
    codes = set()
    for case in range(seed, seed + count):
        rng = random.Random(case)
        line = []
        for spelling, takes in rng.sample(known, rng.choice((1, 1, 2, 3, 6))):
            line += [spelling, rng.choice(WORDS)] if takes else [spelling]
        done = yoda("upscale", "a.png", *line, "--dry-run", "--offline")
        codes.add(done.code)
        assert done.code in HARMLESS, (case, line, done.err)
        assert "internal error" not in done.err, (case, line)
        assert "Traceback" not in done.err, (case, line)
        assert "\x1b" not in done.err + done.out, (case, line)
    assert 2 in codes
    assert (tmp_path / "a.png").read_bytes() == picture


def test_names_made_by_chance_become_results_and_harm_no_terminal(upscale, tmp_path):
    check_names(upscale, tmp_path, 300, 0)


def test_options_made_by_chance_are_heard_or_refused_in_words(yoda, tmp_path, monkeypatch):
    check_options(yoda, tmp_path, monkeypatch, 300, 0)


@pytest.mark.slow
def test_ten_thousand_names_made_by_chance(upscale, tmp_path):
    check_names(upscale, tmp_path, 10_000, 1)


@pytest.mark.slow
def test_ten_thousand_options_made_by_chance(yoda, tmp_path, monkeypatch):
    check_options(yoda, tmp_path, monkeypatch, 10_000, 1000)
