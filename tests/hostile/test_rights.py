"""A user without rights: a source tree that cannot be written, no home, others' files."""

import ctypes
import os
import re
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
     "attention in/0.png -o map.png", "metrics in/0.png in/0.png",
     "compare in/0.png in/1.png -o c.html", "weights verify",
     "bench --dataset large --limit 1 --peer bicubic --metric psnr --csv b.csv --html b.html",
     "train --data large -o run --steps 1 --batch 1 --no-progress"],
)  # fmt: skip
def test_a_stranger_runs_every_command(stranger, tree, command):
    (tree / "desk" / "large").mkdir()
    for index in range(3):
        save_photo(tree / "desk" / "large" / f"{index}.png", 260, 260, seed=index)
    (tree / "desk").chmod(0o777)
    done = run_by(stranger, tree, *command.split())
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2  # linux/capability.h: what lets root open everything
CAPABILITIES = 0x20080522  # the interface's version


class Sets(ctypes.Structure):
    """Of capabilities, 32 of them."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


@pytest.fixture
def minding_modes():
    """Modes of files bind this process, as they bind every user but root."""
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root, and no capabilities to lay down")
    libc, sets = ctypes.CDLL(None, use_errno=True), (Sets * 2)()
    head = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    assert libc.capget(head, sets) == 0
    before = sets[0].effective
    sets[0].effective = before & ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    assert libc.capset(head, sets) == 0
    yield
    sets[0].effective = before
    assert libc.capset(head, sets) == 0


@pytest.fixture
def places(tmp_path, minding_modes):
    """A folder that may not be entered, files in it, and one that may only be entered."""
    closed, entered = tmp_path / "closed", tmp_path / "entered"
    for folder in (closed, entered):
        folder.mkdir()
        save_photo(folder / "a.png", 9, 12)
    (tmp_path / "link.png").symlink_to(closed / "a.png")
    save_photo(tmp_path / "unreadable.png", 9, 12).chmod(0)
    closed.chmod(0)
    entered.chmod(0o100)
    yield {
        "in it": closed / "a.png", "itself": closed, "deep": closed / "x" / "y.png",
        "by a link": tmp_path / "link.png", "unreadable": tmp_path / "unreadable.png",
        "only entered": entered,
    }  # fmt: skip
    for folder in (closed, entered):
        folder.chmod(0o700)


ENLARGE = "upscale a.png -m TINY -q -o o.png --overwrite"
PLACED = [
    "upscale PLACE -m TINY -q -o o.png", "upscale in PLACE -m TINY -o out",
    "upscale PLACE/*.png -m TINY", "upscale a.png -m TINY -q -o PLACE",
    "upscale a.png -m TINY -q --overwrite -o PLACE", "upscale in -m TINY -o PLACE",
    "upscale in -m TINY -o PLACE --skip-existing", f"{ENLARGE} --dump PLACE",
    f"{ENLARGE} --attention PLACE", f"{ENLARGE} --adaptive --regressor PLACE",
    "attention PLACE -m TINY -o map.png", "metrics PLACE a.png", "bench --dataset PLACE -m TINY",
    "train --data PLACE -o run --steps 1", "train --data in -o PLACE --steps 1",
    "weights list --cache-dir PLACE", "weights import PLACE", "weights prune --cache-dir PLACE",
    "weights rm photo --cache-dir PLACE",
]  # fmt: skip
MORE = [
    "upscale --files-from PLACE -m TINY -o out", "upscale a.png -q -m PLACE",
    f"{ENLARGE} --report PLACE", f"{ENLARGE} --log-file PLACE", f"{ENLARGE} --where PLACE",
    f"{ENLARGE} --stage1 PLACE", f"{ENLARGE} --registry PLACE", f"{ENLARGE} --cache-dir PLACE",
    "attention a.png -m TINY -q -o PLACE", "compare a.png PLACE -o c.html",
    "compare a.png a.png -o PLACE", "metrics a.png PLACE", "metrics PLACE in",
    "bench --data-root PLACE --dataset set5 --offline -m TINY",
    "train --data in -o run --init PLACE --steps 1", "train --data in -o run --recipes PLACE",
    "weights list --registry PLACE", "weights verify --cache-dir PLACE",
    "weights path general --cache-dir PLACE", "doctor --cache-dir PLACE",
]  # fmt: skip


def check_place(yoda, tmp_path, monkeypatch, tiny_checkpoint, place, line):
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "a.png", 9, 12)
    (tmp_path / "in").mkdir()
    for name in ("b.png", "c.png"):
        save_photo(tmp_path / "in" / name, 9, 12)
    words = [w.replace("PLACE", str(place)).replace("TINY", str(tiny_checkpoint))
             for w in line.split()]  # fmt: skip
    done = yoda(*words)
    assert done.code in (0, 2, 3, 4, 5, 6, 7), done.err
    assert "internal error" not in done.err, done.err
    assert done.code == 0 or done.err.strip()
    if "-q" in words:
        assert done.err.count("\n") == (done.code != 0), done.err


@pytest.mark.parametrize("line", PLACED)
def test_a_place_that_may_not_be_entered_is_said_in_a_line(
    yoda, tmp_path, monkeypatch, tiny_checkpoint, places, line
):
    check_place(yoda, tmp_path, monkeypatch, tiny_checkpoint, places["in it"], line)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["in it", "itself", "deep", "by a link", "unreadable", "only entered"]
)
@pytest.mark.parametrize("line", PLACED + MORE)
def test_so_is_any_other_place_without_rights(
    yoda, tmp_path, monkeypatch, tiny_checkpoint, places, name, line
):
    check_place(yoda, tmp_path, monkeypatch, tiny_checkpoint, places[name], line)


def test_a_picture_that_may_not_be_looked_at_is_one_that_cannot_be_read(upscale, places):
    done = upscale(places["in it"], "-q")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "Permission denied" in done.err


@pytest.mark.parametrize("home", ["itself", "unreadable"])
def test_another_s_home_and_one_that_is_no_folder_are_no_homes(
    yoda, tmp_path, monkeypatch, tiny_checkpoint, places, home
):
    monkeypatch.delenv("YODA_CACHE_DIR")
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(places[home]))
    monkeypatch.chdir(tmp_path)
    picture = save_photo(tmp_path / "a.png", 9, 12)
    done = yoda("upscale", picture, "-m", tiny_checkpoint, "-q", "-o", "o.png")
    assert (done.code, done.err) == (0, "")
    assert yoda("weights", "list").code == 0


def test_no_package_asks_a_path_in_a_way_that_may_raise():
    """``Path.is_file`` and its kin raise PermissionError before Python 3.14; ``looking`` never."""
    raising = re.compile(r"\.(is_file|is_dir|exists|is_symlink)\(\)")
    own = {
        "files/__init__.py": "suppressed around it",
        "weights/archive.py": "of an archive's members",
    }
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix() not in own:
            assert not raising.search(path.read_text(encoding="utf-8")), path
