"""Worker processes end with what they were started for, and nobody else's are ended."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from commands import started, wait_until
from fakes import save_photo

SECONDS = 5.0  # a worker may outlive its parent


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(6):
        save_photo(tmp_path / "in" / f"{index}.png", 40, 40, seed=index)
    return tmp_path / "in"


def hear_hangups():
    """As a terminal starts it: a suite under ``nohup`` hands down its deafness."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def run_of_two(folder, tmp_path, tiny_checkpoint):
    """A run with two workers that would take minutes, in a session of its own."""
    with started(
        "upscale", folder, "-o", tmp_path / "out", "-j", 2, "--model", tiny_checkpoint, "--steps",
        100, "--exact", "--device", "cpu", start_new_session=True, preexec_fn=hear_hangups,
    ) as run:  # fmt: skip
        yield run
        if run.poll() is None:
            run.kill()


def workers_of(run):
    def words(process):
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            return str(process.cmdline())

    children = psutil.Process(run.pid).children()
    return [child for child in children if "spawn_main" in (words(child) or "")]


def are_gone(processes):
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGKILL, "while they start"),
        (signal.SIGHUP, "while they work"),
        pytest.param(signal.SIGKILL, "while they work", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, "while they start", marks=pytest.mark.slow),
    ],
)
def test_no_worker_outlives_its_parent(run_of_two, tmp_path, number, moment):
    assert wait_until(lambda: len(workers_of(run_of_two)) == 2)
    if moment == "while they work":
        assert wait_until(lambda: list((tmp_path / "out").glob("*.png")))
    workers = workers_of(run_of_two)
    run_of_two.send_signal(number)
    asked = time.monotonic()
    assert wait_until(lambda: are_gone(workers), SECONDS), [w.cmdline() for w in workers]
    code = run_of_two.wait(SECONDS)
    assert time.monotonic() - asked < SECONDS
    assert code == (130 if number == signal.SIGHUP else -signal.SIGKILL)


def test_where_there_is_no_signal_of_death_a_pipe_ends_the_workers(tmp_path):
    """The pipe alone, as on systems other than Linux."""
    code = """
import multiprocessing, sys, time
from yoda_cli.upscaling.batch import lifeline
def sleep(reader):
    lifeline.end_with(reader)
    print("ready", flush=True)
    time.sleep(600)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=sleep, args=(reader,))
    process.start()
    print(process.pid, flush=True)
    time.sleep(600)
"""
    (tmp_path / "parent.py").write_text(code)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE)
    child = psutil.Process(int(parent.stdout.readline()))
    assert parent.stdout.readline() == b"ready\n"
    parent.kill()
    parent.wait()
    assert wait_until(lambda: are_gone([child]), SECONDS)
    parent.stdout.close()


@pytest.mark.slow
def test_a_hangup_that_is_ignored_stays_ignored(folder, tmp_path, tiny_checkpoint):
    """``nohup yoda …`` goes on when its terminal is closed."""
    with started(
        "upscale", folder / "0.png", "-o", tmp_path / "o.png", "--model", tiny_checkpoint,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as run:  # fmt: skip
        assert run.stderr.readline()
        run.send_signal(signal.SIGHUP)
        assert run.wait(60) == 0


@pytest.mark.slow
def test_an_error_ends_the_workers_of_the_run_and_no_other_process(
    folder, tmp_path, tiny_checkpoint, monkeypatch
):
    """A library's caller has children too."""
    import multiprocessing

    from yoda_cli.config import UpscaleOptions, WriteOptions
    from yoda_cli.models.loading import find_model
    from yoda_cli.upscaling.batch import processes
    from yoda_cli.upscaling.batch.inputs import Found
    from yoda_cli.upscaling.batch.outputs import Naming
    from yoda_cli.upscaling.batch.plan import Events, plan_batch

    options = UpscaleOptions(model=str(tiny_checkpoint), device="cpu", precision="fp32")
    model, writing = find_model(options), WriteOptions()
    naming = Naming(tmp_path / "out", model.name, 4.0, 0, writing, "x4")
    batch = plan_batch([Found(p, folder) for p in sorted(folder.iterdir())], naming, model, options)
    (tmp_path / "out").mkdir()
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()

    def broken(item, record):
        raise ZeroDivisionError("the caller's own")

    with pytest.raises(ZeroDivisionError):
        processes.run_workers(batch, options, writing, Events(broken), 2, instead=list)
    assert other.is_alive()
    mine = [p for p in psutil.Process().children() if "spawn_main" in str(p.cmdline())]
    assert [p.pid for p in mine] == [other.pid]
    other.kill()
    other.join()


@pytest.mark.parametrize(
    ("jobs", "moments"),
    [
        (1, (0.15, 0.25, 0.5)),
        pytest.param(1, (0.1, 0.2, 0.3, 0.7, 1.0, 2.0, 3.0, 5.0), marks=pytest.mark.slow),
        pytest.param(2, (0.2, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0), marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_at_any_moment_is_code_130_without_a_traceback(
    folder, tmp_path, tiny_checkpoint, jobs, moments
):
    """From the first instant on; what a terminal sends goes to every process of the run."""
    seen = set()
    for seconds in moments:
        with started(
            "upscale", folder, "-o", tmp_path / "out", "-j", jobs, "--model", tiny_checkpoint,
            "--steps", 100, "--exact", start_new_session=True,
        ) as run:  # fmt: skip
            time.sleep(seconds)
            os.killpg(run.pid, signal.SIGINT)
            _, err = run.communicate(timeout=30)
        assert b"yoda_cli" not in err or b"Traceback" not in err, (seconds, err)
        if b"Traceback" not in err:  # else the interpreter had read nothing of the package yet
            seen.add(run.returncode)
    assert seen <= {130, 0}
    assert 130 in seen


def test_an_interruption_before_the_command_begins_is_said_too():
    code = """
import sys
from yoda_cli import cli
def interrupted(*_, **__):
    raise KeyboardInterrupt
cli.run = interrupted
sys.argv = ["yoda", "upscale"]
cli.main()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, b"interrupted: the same command goes on\n")
