"""README and docs: every command and every program printed there is run, every table compared."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import save_photo
from PIL import Image

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
PROSE = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def page(name):
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def blocks(kind):
    """(page, text) of every block of code of a kind."""
    for path in PAGES:
        for block in re.findall(rf"```{kind}\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
            yield path.name, block


def commands():
    for _, block in blocks("sh"):
        for line in block.splitlines():
            yield from filter(None, (part.strip() for part in line.split("#")[0].split("&&")))


YODA = sorted({command for command in commands() if command.startswith("yoda ")})
LONG = {command for command in YODA if "photos/" in command or command.startswith("yoda export")}
# Installing is what .ci/run does, in a fresh virtual environment; pytest is running now; the site
# is built by a test below.
OTHER = {
    "python3 -m venv .venv",
    ". .venv/bin/activate",
    "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu",
    "pip install .",
    "pip install '.[docs]'",
    "pip install '.[vips]'",
    "pip install -e '.[test]'",
    "pytest -n auto",
    "mkdocs build --strict",
}


@pytest.fixture(autouse=True)
def no_defaults(monkeypatch, tmp_path):
    monkeypatch.setenv("YODA_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    for name in ("photo.jpg", "photo.png", "old.jpg"):
        save_photo(tmp_path / name, 20, 24)
    save_photo(tmp_path / "portrait.png", 24, 24)
    Image.new("L", (24, 20), 200).save(tmp_path / "painted.png")
    save_photo(tmp_path / "truth.png", 64, 64)
    save_photo(tmp_path / "result.png", 64, 64, seed=1)
    (tmp_path / "photos").mkdir()
    for i in range(2):
        save_photo(tmp_path / "photos" / f"{i}.png", 140, 160, seed=i)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shortened(command):
    """An hour of training is one step, 3000 pixels are 300; all else is run to the letter."""
    command = command.replace("--minutes 15", "--steps 1")
    return command.replace("--minutes 60", "--steps 1").replace("--width 3000", "--width 300")


def test_every_command_is_known():
    assert {c for c in commands() if c not in YODA} == OTHER
    assert len(YODA) >= 20


@pytest.mark.parametrize("command", [c for c in YODA if c not in LONG])
def test_a_printed_command_works(yoda, desk, command):
    done = yoda(*shlex.split(shortened(command))[1:])
    assert done.code == 0, done.err
    assert done.out


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(LONG))
def test_a_printed_command_that_takes_long_works(yoda, desk, command):
    done = yoda(*shlex.split(shortened(command))[1:])
    assert done.code == 0, done.err
    assert done.out


def test_the_commands_on_folders_are_understood(yoda, desk):
    """What they do takes long, and is tested elsewhere; that they are right is seen at once."""
    said = yoda("upscale", "photos/", "-r", "-o", "enlarged/", "--dry-run")
    assert said.code == 0, said.err
    assert said.out.count("→ enlarged/") == 2


PROGRAMS = [(name, block) for name, block in blocks("python") if name != "backbones.md"]


@pytest.mark.parametrize(("name", "source"), PROGRAMS, ids=lambda value: value[:12])
def test_a_printed_program_runs(desk, name, source):
    scope = {}
    exec(compile(source, name, "exec"), scope)
    if "attention" in scope:
        assert scope["attention"].shape == (1, 1, 20, 24)
    if "result" in scope:
        assert scope["result"].image.size[0] >= 48


def test_the_readme_is_short():
    assert len(README.read_text("utf-8").splitlines()) <= 130


def test_no_page_names_a_strangers_package():
    found = [*blocks("sh"), *blocks("text")]
    assert len(found) > 20
    for name, block in found:
        assert "yoda-cli" not in block, name


def test_every_link_and_picture_of_the_readme_is_there():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text("utf-8"))
    assert len(links) > 10
    for link in links:
        assert link.startswith("https://") or (ROOT / link).is_file(), link


def test_every_picture_of_the_docs_is_shown_and_small():
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    assert pictures
    for picture in pictures:
        assert f"pictures/{picture.name}" in PROSE
        assert picture.stat().st_size < 100_000


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "gallery" / "index.html").is_file()


def test_the_exit_codes_are_those_of_the_program():
    from yoda_cli import errors
    from yoda_cli.cli.help import EXIT_CODES

    printed = re.findall(r"^\| (\d+) \| (.+) \|$", page("errors"), flags=re.MULTILINE)
    assert {int(code): meaning for code, meaning in printed} == EXIT_CODES
    tree = [errors.YodaError, *errors.YodaError.__subclasses__()]
    assert set(EXIT_CODES) == {0, errors.INTERRUPTED, *(e.exit_code for e in tree)}


def test_every_option_is_explained(yoda):
    flags = set(re.findall(r"--[a-z][a-z-]+", yoda("upscale", "--help-all").out))
    assert len(flags) > 60
    assert {flag for flag in flags if not re.search(rf"{flag}(?![a-z-])", PROSE)} == set()


def test_the_attention_sources_are_those_of_the_program():
    from yoda_cli.attention import HEADED, LEARNED, SOURCES

    table = page("options").split("| `--attention` |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([a-z0-9-]+)`", table)) == {LEARNED, *SOURCES, *HEADED}


def test_the_samplers_are_those_of_the_program():
    from yoda_cli.diffusion.samplers import SAMPLERS

    table = page("method").split("| `--sampler` |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([a-z0-9+-]+)`", table)) == set(SAMPLERS)


def test_the_weights_commands_are_those_of_the_program():
    from yoda_cli.cli.weights import app

    table = page("weights").split("| `yoda weights` |")[1].split("\n\n")[0]
    named = {cell.split()[0] for cell in re.findall(r"`([a-z]+[ A-Z]*)`", table)}
    assert named == {
        command.name or command.callback.__name__ for command in app.registered_commands
    }


def test_the_extras_are_those_of_the_project():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    table = page("platforms").split("| extra |")[1].split("\n\n")[0]
    named = set(re.findall(r"^\| `([a-z]+)` \|", table, flags=re.MULTILINE))
    assert named == set(project["optional-dependencies"])


def test_the_result_tables_are_those_that_were_measured():
    from yoda_cli.evaluation.report import as_markdown

    results = sorted((ROOT / "tests" / "data" / "bench").glob("*.json"))
    assert results
    for path in results:
        block = page("checkpoints").split(f"<!-- bench {path.stem} -->")[1]
        written = block.split("<!-- end -->")[0].strip()
        assert written == as_markdown(json.loads(path.read_text())).strip()


def test_the_defaults_that_the_help_names_are_those_of_general(yoda):
    """The help says values; they are those of the model that is run without --model."""
    from yoda_cli.config import UpscaleOptions
    from yoda_cli.models.loading import find_model

    model = find_model(UpscaleOptions(device="cpu", precision="fp32"))
    help_ = " ".join(yoda("upscale", "--help-all").out.replace("│", " ").split())
    assert f"smoothest (default: {model.defaults.fidelity:g})" in help_
    assert f"Diffusion steps (default: {model.defaults.steps})" in help_
    assert f"at most 1 (default: {model.defaults.lower_bound:g})" in help_
    assert f"at most 16 (default: {model.scale})" in help_
    assert f"(default: {model.defaults.sampler})" in help_
