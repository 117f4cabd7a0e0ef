"""A user without rights: a source tree that cannot be written, no home, others' files."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fakes import save_photo

import yoda_cli

PACKAGE = Path(yoda_cli.__file__).parent
NOBODY = 65_534
# What a run needs of its interpreter: the libraries, there and in a child.
PROBE = """
import subprocess, sys
import PIL, numpy, torch, typer
sys.exit(subprocess.call([sys.executable, "-c", "import typer"]))
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="users and modes of POSIX")


@pytest.fixture(scope="module")
def stranger():
    """What is put before a command so that a user without rights runs it.

    The interpreter or its libraries may stand in a folder of root's alone: then this user may read
    anything, and write no more than any other. Where even that does not help (the libraries are not
    found), there is no such user to be had here.
    """
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root, and no setpriv that gives its rights away")
    who = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    may_read = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    for prefix in ([*who, "--inh-caps=-all"], [*who, *may_read]):
        command = [*prefix, "--", sys.executable, "-c", PROBE]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return [*prefix, "--"]
    pytest.skip("root, and a stranger can use neither this interpreter nor its libraries")


@pytest.fixture
def tree():
    """A place that anybody may enter: ``source`` cannot be written, ``desk`` is the stranger's."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        source, desk = place / "source", place / "desk"
        shutil.copytree(
            PACKAGE, source / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        registry = PACKAGE.parent / "weights.toml"
        if registry.exists():
            shutil.copy(registry, source)
        (desk / "in").mkdir(parents=True)
        for index in range(2):
            save_photo(desk / "in" / f"{index}.png", 9, 12, seed=index)
        for path in (source, *source.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
        if os.geteuid() == 0:
            for path in (desk, *desk.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        yield place
        for path in (source, *source.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)


def run_by(stranger, tree, *arguments):
    """``yoda arguments…`` from the tree, at the desk."""
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(tree / "source"), "HOME": "/nonexistent",
        "TMPDIR": str(tree / "desk"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    command = [*stranger, sys.executable, "-m", "yoda_cli", *arguments]
    return subprocess.run(
        command, cwd=tree / "desk", env=environment, capture_output=True, text=True
    )


def files_under(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_stranger_enlarges_from_a_tree_that_cannot_be_written(stranger, tree):
    before = files_under(tree / "source")
    done = run_by(stranger, tree, "upscale", "in/0.png", "--steps", "1")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tree / "desk" / "in").glob("0_*")] == ["0_general_x4.png"]
    assert files_under(tree / "source") == before


@pytest.mark.slow
def test_a_stranger_writes_nothing_into_that_tree(stranger, tree):
    before = files_under(tree / "source")
    for place in (tree / "source" / "made.png", tree / "source" / PACKAGE.name / "made.png"):
        refused = run_by(
            stranger, tree, "upscale", "in/0.png", "--steps", "1", "-q", "-o", str(place)
        )
        assert (refused.returncode, refused.stderr.count("\n")) == (7, 1), refused.stderr
    assert files_under(tree / "source") == before


def test_a_folder_that_may_not_be_written_is_said_before_any_work(stranger, tree):
    done = run_by(stranger, tree, "upscale", "in/0.png", "-o", str(tree / "source" / "made.png"))
    assert done.returncode == 7, done.stderr
    assert "to compute" not in done.stderr
    assert "Permission denied" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["upscale in -j 2 --steps 1", "doctor", "weights list", "weights prune", "config",
     "attention in/0.png -o map.png", "metrics in/0.png in/0.png"],
)  # fmt: skip
def test_a_stranger_runs_every_command(stranger, tree, command):
    done = run_by(stranger, tree, *command.split())
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
