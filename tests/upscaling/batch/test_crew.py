"""Workers that die, cannot begin or cannot be started are answers, and nothing waits for ever."""

import multiprocessing.spawn
import os
import sys
import time

import pytest
from fakes import save_photo

from yoda_cli.upscaling.batch.crew import Crew, Word


@pytest.fixture
def crew(monkeypatch):
    """Workers that say words twice; pytest is not imported again in each."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with Crew("echo_worker", "echo") as made:
        yield made


@pytest.fixture
def no_child_starts(tmp_path):
    """An interpreter that this process may run, and its children may not."""
    before = multiprocessing.spawn.get_executable()
    multiprocessing.spawn.set_executable(str(tmp_path / "none"))
    yield
    multiprocessing.spawn.set_executable(before)


def listen(crew):
    return [(word, what) for _, word, what in crew.listen()]


def test_a_worker_does_tasks_until_it_dies(crew):
    crew.hire(0, "able")
    assert listen(crew) == [(Word.READY, None)]
    crew.workers[0].give(0, "tile")
    assert listen(crew) == [(Word.DONE, "tiletile")]
    crew.workers[0].give(1, "die")
    assert listen(crew) == [(Word.DIED, "exit code 9")]
    assert crew.workers == []


def test_a_worker_that_cannot_begin_says_why(crew):
    crew.hire(0, "unable")
    assert listen(crew) == [(Word.UNABLE, "no such device")]
    assert listen(crew) == [(Word.DIED, "exit code 0")]


def test_an_error_ends_workers_at_once():
    with pytest.raises(ZeroDivisionError), Crew("time", "sleep") as crew:  # noqa: PT012
        crew.hire(0)
        process = crew.workers[0].process
        began = time.monotonic()
        raise ZeroDivisionError
    assert not process.is_alive()
    assert time.monotonic() - began < 4


@pytest.mark.skipif(os.name != "posix", reason="an interpreter is looked up by another rule")
def test_where_no_child_starts_this_process_does_the_work(
    yoda, tmp_path, tiny_checkpoint, no_child_starts
):
    (tmp_path / "in").mkdir()
    for index in range(3):
        save_photo(tmp_path / "in" / f"{index}.png", 8, 8, seed=index)
    command = ("upscale", tmp_path / "in", "-o", tmp_path / "out", "-j", "2", "--model")
    done = yoda(*command, tiny_checkpoint)
    assert done.code == 0, done.err
    assert f"no worker process can begin ({tmp_path / 'none'}: No such file or dir" in done.err
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


@pytest.mark.skipif(os.name != "posix", reason="an interpreter is looked up by another rule")
@pytest.mark.filterwarnings("error")
def test_a_broken_pipe_in_a_command_is_said(yoda, monkeypatch):
    """The parser alone would leave with code 1 and no word."""
    from yoda_cli.reports import doctor

    def broken(*_):
        raise BrokenPipeError(32, "Broken pipe")

    names = [name for name in vars(doctor) if callable(getattr(doctor, name)) and name[0] != "_"]
    for name in names:
        monkeypatch.setattr(doctor, name, broken)
    done = yoda("doctor")
    assert done.code == 7
    assert "broken pipe" in done.err
