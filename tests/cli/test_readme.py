"""Every command that the README prints is run as it stands there."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from fakes import save_photo
from PIL import Image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def commands():
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL):
        for line in block.splitlines():
            yield from (part.strip() for part in line.split("#")[0].split("&&"))


YODA = [command for command in commands() if command.startswith("yoda ")]
# Installing is what .ci/run does, in a fresh virtual environment; pytest is running now.
OTHER = {"pip install .", "pip install -e '.[test]'", "pytest -n auto"}


def test_every_command_is_known():
    assert {c for c in commands() if c and c not in YODA} == OTHER
    assert len(YODA) >= 6


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the files that the README speaks of."""
    shutil.copytree(ROOT / "yoda_cli" / "samples", tmp_path / "yoda_cli" / "samples")
    save_photo(tmp_path / "photo.png", 20, 24)
    save_photo(tmp_path / "photo.jpg", 20, 24)
    Image.new("L", (24, 20), 200).save(tmp_path / "painted.png")
    save_photo(tmp_path / "truth.png", 64, 64)
    save_photo(tmp_path / "result.png", 64, 64, seed=1)
    (tmp_path / "photos").mkdir()
    for i in range(2):
        save_photo(tmp_path / "photos" / f"{i}.png", 140, 160, seed=i)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", YODA)
def test_a_command_of_the_readme_works(yoda, desk, command):
    # An hour of training is cut to one step; everything else is run to the letter.
    arguments = shlex.split(command.replace("--minutes 60", "--steps 1"))[1:]
    done = yoda(*arguments)
    assert done.code == 0, done.err
    assert done.out


def test_the_exit_codes_are_those_of_the_program():
    from yoda_cli import errors

    printed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)}
    tree = [errors.YodaError, *errors.YodaError.__subclasses__()]
    assert printed == {0, errors.INTERRUPTED, *(e.exit_code for e in tree)}


def test_the_attention_sources_are_those_of_the_program():
    from yoda_cli.attention import HEADED, LEARNED, SOURCES

    table = README.split("| `--attention` |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([a-z0-9-]+)`", table)) == {LEARNED, *SOURCES, *HEADED}


def test_the_weights_commands_are_those_of_the_program():
    from yoda_cli.cli.weights import app

    table = README.split("| `yoda weights` |")[1].split("\n\n")[0]
    named = {cell.split()[0] for cell in re.findall(r"`([a-z]+[ A-Z]*)`", table)}
    assert named == {
        command.name or command.callback.__name__ for command in app.registered_commands
    }


def test_the_result_tables_are_those_that_were_measured():
    from yoda_cli.evaluation.report import as_markdown

    results = sorted((ROOT / "tests" / "data" / "bench").glob("*.json"))
    assert results
    for path in results:
        block = README.split(f"<!-- bench {path.stem} -->")[1].split("<!-- end -->")[0]
        assert block.strip() == as_markdown(json.loads(path.read_text())).strip()


def test_the_python_of_the_readme_runs(desk):
    block = README.split("```python\n")[1].split("```")[0]
    scope = {}
    exec(compile(block, "README.md", "exec"), scope)
    assert scope["result"].image.shape == (1, 3, 80, 96)
    assert scope["attention"].shape == (1, 1, 20, 24)
