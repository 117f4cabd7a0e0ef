"""Worker processes that do one task at a time; one that dies is an answer like any other.

Knows nothing of pictures. Needs no thread and no lock: where a machine gives no more of either, or
a user may start no process, what is started says so, and nothing waits for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from multiprocessing import connection, spawn
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from yoda_cli.errors import NO_MEMORY, DeviceError
from yoda_cli.upscaling.batch import lifeline

END_SECONDS = 5.0  # a worker that was told to end and does not is killed


class Word(Enum):
    """What a worker says, or what its end says."""

    READY = auto()  # it waits for its first task
    UNABLE = auto()  # it cannot begin; with the reason
    SHARE = auto()  # so much of its task is done, from 0 to 1
    DONE = auto()  # with the result
    FAILED = auto()  # with an exception
    DIED = auto()  # with the reason


@dataclass(eq=False)
class Hand:
    """A worker: its process, this end of its pipe, and the number of the task that it does."""

    process: BaseProcess
    pipe: Any  # multiprocessing's Connection, which has another name on Windows
    place: int
    is_ready: bool = False
    task: int | None = None

    def give(self, task: int, what: object) -> None:
        """Hand over a task. A worker that is gone is found so by the next ``listen``."""
        self.task = task
        try:
            self.pipe.send(what)
        except OSError:
            return


class Crew:
    """Workers that call ``module.function(pipe, *arguments)``, and are gone when it is left."""

    def __init__(self, module: str, function: str) -> None:
        self.called = (module, function)
        self.workers: list[Hand] = []
        self._context = multiprocessing.get_context("spawn")
        self._reader, self._writer = self._context.Pipe(duplex=False)  # the workers' lifeline

    def __enter__(self) -> Crew:
        return self

    def hire(self, place: int, *arguments: object) -> None:
        """Start one worker more. Raises OSError or RuntimeError where the system starts none."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=lifeline.begin, args=(self._reader, *self.called, theirs, *arguments),
            daemon=True,
        )  # fmt: skip
        try:
            with lifeline.interrupts_held(), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of helpers that cannot start either
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.workers.append(Hand(process, ours, place))

    def listen(self) -> list[tuple[Hand, Word, Any]]:
        """Wait until a worker says something or dies; a dead one is no longer of the crew."""
        talking = connection.wait([worker.pipe for worker in self.workers])
        heard: list[tuple[Hand, Word, Any]] = []
        for worker in [worker for worker in self.workers if worker.pipe in talking]:
            try:
                word, what = worker.pipe.recv()
            except (EOFError, OSError):
                word, what = Word.DIED, self._bury(worker)
            worker.is_ready |= word is Word.READY
            heard.append((worker, word, what))
        return heard

    def _bury(self, worker: Hand) -> str:
        """Take a dead worker out; how it ended."""
        self.workers.remove(worker)
        worker.pipe.close()
        _end([worker.process])
        code = worker.process.exitcode or 0
        if code == DeviceError.exit_code:
            return NO_MEMORY
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if kind is not None:
            self._writer.close()  # ends all at once, in the middle of their tasks
        for worker in self.workers:
            if kind is not None or not worker.is_ready:  # it does or loads what nobody needs now
                worker.process.kill()
            worker.pipe.close()
        _end([worker.process for worker in self.workers])
        self._writer.close()
        self._reader.close()


def why_none(error: object) -> str:
    """Why the system starts no worker, after it said ``error``."""
    interpreter = os.fsdecode(spawn.get_executable() or "")
    try:
        subprocess.run([interpreter, "-c", ""], check=False, capture_output=True)
    except OSError as refused:
        return f"{interpreter}: {refused.strerror}"
    return str(error)


def _end(processes: Sequence[BaseProcess]) -> None:
    """Wait until ``processes`` are gone, and kill what stays."""
    for process in processes:
        process.join(END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
