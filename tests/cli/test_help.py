"""The first minutes: help, names, answers before torch is loaded, defaults of one's own."""

import json
import re
import subprocess
import sys

import pytest
import typer
from fakes import save_photo

from yoda_cli import errors
from yoda_cli.cli import _defaults, _names, app, application_for


@pytest.fixture(autouse=True)
def narrow(monkeypatch, tmp_path):
    """A terminal of 80 columns, and no defaults of the person who runs the tests."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("YODA_CONFIG", str(tmp_path / "config.toml"))


def flags_in(text):
    return {word.strip(",│") for word in text.split() if word.startswith("--")}


def test_the_help_of_upscale_fits_one_screen(yoda):
    shown = yoda("upscale", "--help")
    assert shown.code == 0
    assert len(shown.out.splitlines()) <= 45
    assert max(len(line) for line in shown.out.splitlines()) <= 80
    assert shown.out.count("yoda upscale") >= 5  # the usage and four examples
    assert {"--output", "--scale", "--denoise", "--help-all"} <= flags_in(shown.out)


def test_the_list_of_commands_is_the_same_whether_their_options_are_read_or_not(yoda):
    """``yoda --help`` reads none, nor any command's module: together they took half its time."""
    listed = typer.main.get_command(application_for(["--help"]))
    assert not any(each.params for each in listed.commands.values())
    whole = typer.main.get_command(app())
    shown = yoda("--help").out
    assert list(listed.commands) == list(whole.commands)
    for name, command in whole.commands.items():
        line = listed.commands[name].get_short_help_str(200)
        assert line == command.get_short_help_str(200)
        assert name == "upscale" or line.rstrip(".") == command.help.rstrip(".")
        assert name in shown


@pytest.mark.parametrize(("arguments", "loaded"), [(["--help"], []), (["compare"], ["compare"])])
def test_a_command_alone_is_loaded_and_for_the_list_none(arguments, loaded):
    program = (
        "import sys; from yoda_cli.cli import run; from yoda_cli.cli._commands import COMMANDS; "
        f"run({arguments}); "
        "print([name for name in COMMANDS if 'yoda_cli.cli.' + name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == str(loaded)


def test_all_options_are_shown_on_request_and_aliases_never(yoda):
    shown, every = (flags_in(yoda("upscale", flag).out) for flag in ("--help", "--help-all"))
    assert shown < every
    assert {"--lower-bound", "--offline", "--report", "--stage1", "--shard"} <= every - shown
    assert not {"--model-name", "--input"} & every


def test_help_on_a_command_and_on_exit_codes(yoda):
    assert yoda("help", "upscale").out == yoda("upscale", "--help").out
    lines = yoda("help", "exit-codes").out.splitlines()
    tree = [errors.YodaError, *errors.YodaError.__subclasses__()]
    codes = {0, errors.INTERRUPTED, *(error.exit_code for error in tree)}
    assert {int(line.split()[0]) for line in lines} == codes
    assert "did you mean upscale?" in yoda("help", "upscal").err


@pytest.mark.parametrize(
    "command",
    ["", "attention", "compare", "bench", "metrics", "train", "export", "doctor", "config", "help",
     "weights", "weights list", "weights pull", "weights import"],
)  # fmt: skip
def test_help_fits_and_has_no_types_of_the_programming_language(yoda, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    said = yoda(*command.split(), "--help").out
    assert not re.search(r"<\w+|list\[", said), said
    assert max(map(len, said.splitlines())) <= 80


def test_no_command_shows_the_help_and_no_other_line(yoda):
    done = yoda()
    assert done.code == 2
    assert "upscale" in done.out + done.err
    assert "yoda: " not in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["photo.png"], 2, "did you mean: yoda upscale photo.png"),
        (["upscal", "photo.png"], 2, "Did you mean 'upscale'?"),
        (["upscale"], 2, "no pictures were named"),
        (["upscale", "phto.png"], 3, "did you mean photo.png?"),
        (["upscale", "zoo.png"], 3, "no such file: zoo.png\n"),
        (["upscale", "https://example.com/a.png"], 4, "https://example.com/a.png: addresses are"),
        (["upscale", "photo.png", "--model", "genral"], 2, "did you mean general?"),
        (["upscale", "photo.png", "--model", "none.pth"], 5, "no such checkpoint: none.pth"),
        (["upscale", "photo.png", "--attention", "lerned"], 2, "did you mean learned?"),
        (["upscale", "photo.png", "--attention", "nomap.png"], 3, "no such file: nomap.png"),
        (["upscale", "photo.png", "--sampler", "dim"], 2, "did you mean ddim?"),
        (["upscale", "photo.png", "--precision", "f32"], 2, "did you mean fp32?"),
        (["upscale", "photo.png", "--device", "cudo:1"], 2, "did you mean cuda?"),
        (["upscale", "photo.png", "--scale", "5y"], 2, "give a number such as 2, 3 or 4"),
        (["upscale", "photo.png", "--steps", "many"], 2, "give a whole number"),
        (["upscale", "photo.png", "--quality", "101"], 2, "give 1 … 100"),
        (["upscale", "photo.png", "--jobs", "0"], 2, "give 1 or more"),
        (["upscale", "photo.png", "--max-pixels", "9" * 400], 2, "a number such as 800M or 2G"),
        (["upscale", "photo.png", "--tile-overlap", "9" * 400], 2, "give 0 or more pixels"),
        (["upscale", "photo.png", "--width", "9" * 400], 2, "e+17 times the 8 pixels"),
        (["upscale", "photo.png", "--tile", "9" * 5000], 2, "give auto, 0 or a number of pixels"),
        (["upscale", "photo.png", "--denoise", "hard"], 2, "give auto, none, light, strong"),
        (["weights", "pull", "x", "--dry-rum"], 2, "(see yoda weights pull --help)"),
        (["weights", "pull", "genera"], 2, "did you mean general?\n"),
        (["weights", "pull", "nosuch"], 2, "'nosuch'; yoda weights list --all shows what there is"),
        (["upscale", "photo.png", "--model", "nosuch"], 2, "; or give a checkpoint file\n"),
        (["upscale", "photo.png", "--model", "realesr"], 2, "did you mean realesr"),
        (["upscale", "photo.png", "--attention", "zzz"], 2, "resnet50-cam, or a grey picture\n"),
        (["bench", "--dataset", "sampel"], 2, "did you mean sample?\n"),
        (["bench", "--dataset", "nosuch"], 2, "urban100, celebahq, or a folder\n"),
        (["bench", "--dataset", "sample", "--model", "genral"], 2, "did you mean general?\n"),
        (["bench", "--dataset", "sample", "--metric", "pnsr"], 2, "did you mean psnr?\n"),
        (["bench", "--dataset", "sample", "--peer", "bicubik"], 2, "did you mean bicubic?\n"),
        (
            ["upscale", "photo.png", "--width", "300"],
            2,
            "that is 37.5 times the 8 pixels",
        ),
        (["version"], 2, "did you mean: yoda --version"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(
    yoda, tmp_path, monkeypatch, arguments, code, said
):
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "photo.png", 8, 8)
    done = yoda(*arguments)
    assert done.code == code
    assert said in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["upscale", "nosuch.png"],
        ["upscale", "here.png", "--model", "genral"],
        ["upscale", "here.png", "--scale", "17"],
        ["bench", "--dataset", "nosuch"],
        ["bench", "--dataset", "sample", "--metric", "pnsr"],
    ],
)
def test_a_mistake_is_answered_before_torch_is_loaded(tmp_path, arguments):
    """Nor is what checks values loaded, which takes as long as all the rest; but for lists."""
    save_photo(tmp_path / "here.png", 8, 8)
    program = (
        "import sys; from yoda_cli.cli import run; "
        f"code = run({arguments!r}); "
        "print(code, [name for name in ('torch', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    allowed = ("[]", "['pydantic']") if arguments[0] == "bench" else ("[]",)
    assert done.stdout.split()[1] in allowed
    assert int(done.stdout.split()[0]) in (2, 3)


def test_names_for_completion_are_those_of_the_program():
    from yoda_cli.attention import HEADED, SOURCES
    from yoda_cli.devices.device import PRECISIONS
    from yoda_cli.evaluation.methods import PEERS
    from yoda_cli.models.latent.settings import TASKS
    from yoda_cli.upscaling.checks import TASK_NAMES

    assert {*_names.PEERS, *SOURCES, *HEADED} == set(PEERS)
    assert ("auto", *PRECISIONS) == _names.PRECISIONS
    assert tuple(TASKS) == TASK_NAMES


def test_a_new_line_of_a_table_is_known_to_checks_and_completion(tmp_path):
    """A sampler or a metric is one function and one line: no other list holds its name."""
    program = """
from yoda_cli.diffusion import samplers
samplers.SAMPLERS["mine"] = samplers.Sampler("mine", "ddpm_step", is_ancestral=True)
from pathlib import Path
text = Path(samplers.__file__).parents[1].joinpath("evaluation/metric_table.py").read_text()
from yoda_cli.evaluation import metric_table
line = 'Metric("mymetric", "higher", "words", lambda s, f: 1.0), Metric("psnr"'
exec(text.replace('Metric("psnr"', line, 1), vars(metric_table))
import sys, typer
from yoda_cli.cli import _early, app
from yoda_cli.config import UpscaleOptions
_early.check_names(UpscaleOptions(model="general", sampler="mine"))
_early.check_options(UpscaleOptions(sampler="mine", faithful=True))
_early.check_bench(["sample"], "general", None, ["mymetric"])
group = typer.main.get_command(app())
for command, name, begin in [("upscale", "sampler", "mi"), ("bench", "metric", "my")]:
    option = next(p for p in group.commands[command].params if p.name == name)
    found = option.shell_complete(typer.Context(group.commands[command]), begin)
    print(*[item.value for item in found])
print([name for name in ("numpy", "torch") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split("\n")[:3] == ["mine", "mymetric", "[]"], done.stderr


def test_values_are_completed():
    assert [name for name, _ in _names.complete_models("gen")] == ["general"]
    assert "dino-vits8" in _names.among(_names.SOURCES)("dino")
    assert "div2k" in _names.complete_datasets("div")
    assert {"general", "photo"} <= set(_names.complete_weights(""))


def test_options_name_what_completes_them():
    group = typer.main.get_command(app())
    for command, flag in [("upscale", "model"), ("upscale", "attention"), ("bench", "dataset")]:
        option = next(p for p in group.commands[command].params if p.name == flag)
        found = option.shell_complete(typer.Context(group.commands[command]), "")
        assert found, flag


def test_the_spellings_of_other_programs_are_understood(yoda, tmp_path, tiny_checkpoint):
    picture = save_photo(tmp_path / "in.png", 6, 7)
    done = yoda(
        "upscale", "-i", picture, "-o", tmp_path / "out", "-n", tiny_checkpoint, "-f", "jpg",
        "-s", "4x",
    )  # fmt: skip
    assert done.code in (0, 7), done.err
    done = yoda("upscale", "-i", picture, "-n", tiny_checkpoint, "-f", "jpg", "-s", "4x")
    assert done.out.strip().endswith("in_tiny_x4.jpg")


def test_defaults_come_from_a_file_and_from_the_environment(yoda, tmp_path, monkeypatch):
    picture = save_photo(tmp_path / "in.png", 6, 7)
    (tmp_path / "config.toml").write_text(
        'model = "genral"\n[upscale]\nscale = 2\nrecursive = true\n', encoding="utf-8"
    )
    assert "'genral'" in yoda("upscale", picture).err
    monkeypatch.setenv("YODA_MODEL", "fac")
    assert "'fac'" in yoda("upscale", picture).err
    assert "'facee'" in yoda("upscale", picture, "--model", "facee").err
    shown = json.loads(yoda("config", "--json").out)
    assert shown["path"] == str(tmp_path / "config.toml")
    found = {(d["command"], d["option"], d["value"], d["source"]) for d in shown["defaults"]}
    assert found == {
        ("all", "model", "fac", "YODA_MODEL"),
        ("upscale", "scale", "2", "file"),
        ("upscale", "recursive", "True", "file"),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('modle = "face"\n', "did you mean model?"),
        ("[upscal]\nscale = 2\n", "did you mean upscale?"),
        ("[upscale]\nscael = 2\n", "did you mean scale?"),
        ("model = \n", "config.toml cannot be read"),
    ],
)
def test_a_wrong_key_in_the_file_is_refused(yoda, tmp_path, text, said):
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    done = yoda("upscale", "x.png")
    assert done.code == 2
    assert said in done.err


def test_the_example_of_a_file_is_one_that_is_read(yoda, tmp_path):
    (tmp_path / "config.toml").write_text(yoda("config", "--example").out, encoding="utf-8")
    assert yoda("config").code == 0
    assert yoda("upscale", tmp_path / "nosuch.png").code == 3


def test_what_is_said_is_kept_in_a_log(yoda, tmp_path):
    log = tmp_path / "run.log"
    yoda("upscale", tmp_path / "nosuch.png", "--log-file", log)
    assert "no such file" in log.read_text(encoding="utf-8")
    yoda("upscale", tmp_path / "other.png")
    assert "other.png" not in log.read_text(encoding="utf-8")


@pytest.mark.parametrize("named", [False, True])
def test_defaults_in_a_home_that_may_not_be_entered_are_somebody_elses(
    monkeypatch, tmp_path, named
):
    """``HOME`` of another user, as ``sudo -E`` and containers leave it; a file that was named is
    meant."""
    path = tmp_path / "closed" / "config.toml"
    monkeypatch.setattr(_defaults, "config_path", lambda: path)
    monkeypatch.setattr(_defaults.os, "access", lambda folder, mode: folder != path.parent)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(_defaults, "read_small", refuse)
    if named:
        monkeypatch.setenv("YODA_CONFIG", str(path))
        with pytest.raises(errors.UsageError, match="cannot be read"):
            _defaults.read_config()
        return
    monkeypatch.delenv("YODA_CONFIG")
    assert _defaults.read_config() == {}
