"""A batch on several processes of this machine, each with a model and its share of the threads.

A worker that dies is replaced and its picture done again, once and alone; no picture is lost
silently. Where no worker can begin, this process does the work.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from yoda_cli.arrays import set_threads, threads, usable_cores
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import NO_MEMORY, DeviceError, YodaError, is_out_of_memory, name_surprises
from yoda_cli.models.model import Model
from yoda_cli.models.ncnn_network import load_plain
from yoda_cli.upscaling.animation import is_held, make_in_parts
from yoda_cli.upscaling.batch.crew import Crew, Hand, Word, why_none
from yoda_cli.upscaling.batch.plan import Batch, Events, Failure, record_in_manifest, report_failure
from yoda_cli.upscaling.batch.record import record_of
from yoda_cli.upscaling.picture import Item, compute, read, write
from yoda_cli.upscaling.pipeline import get_model
from yoda_cli.upscaling.progress import PictureProgress

TELL_SECONDS = 0.25  # between two words of a worker on how far it is


@dataclass(frozen=True)
class Worker:
    """A model in a process of its own."""

    model: Model
    options: UpscaleOptions
    writing: WriteOptions

    on_progress: Callable[[float], None] = lambda share: None

    @staticmethod
    def start(
        options: UpscaleOptions, writing: WriteOptions, count: int, *, plain: bool = False
    ) -> Worker:
        """With ``count`` threads; ``plain``: ncnn runs its network, and torch is not loaded."""
        set_threads(count)
        return Worker(load_plain(options) if plain else get_model(options), options, writing)

    def do(self, item: Item) -> dict[str, Any]:
        """Read, enlarge and write one picture; its record."""
        with name_surprises(str(item.source)):
            observer = PictureProgress.of(item, self.model, self.on_progress).observer
            if is_held(item, self.model, self.options, observer):
                decoded = read(item, plain=self.model.is_plain)
                computed = compute(item, decoded, self.model, self.options, observer)
                done = write(item, computed, self.model, self.writing)
            else:
                done = make_in_parts(item, self.model, self.options, self.writing, observer)
            return record_of(done, self.model)


def threads_each(jobs: int, exact: bool) -> int:
    """The cores a process may use, shared among the workers."""
    return 1 if exact else max(1, min(threads(), usable_cores()) // jobs)


def devices_for(options: UpscaleOptions, jobs: int, *, plain: bool = False) -> list[str]:
    """One device per worker: all CUDA devices in turn, or the one that was asked for."""
    if plain:
        return [options.device] * jobs
    import torch

    count = torch.cuda.device_count() if options.device in ("auto", "cuda") else 0
    return [f"cuda:{i % count}" if count else options.device for i in range(jobs)]


def serve(
    pipe: Connection, options: UpscaleOptions, writing: WriteOptions, count: int, plain: bool
) -> None:
    """The life of a worker: pictures come through ``pipe``, and what became of each goes back."""
    logging.getLogger("yoda_cli").addHandler(logging.NullHandler())
    with contextlib.suppress(EOFError, ConnectionError):  # nobody has more pictures, or listens
        try:
            with name_surprises("a worker"):
                started = Worker.start(options, writing, count, plain=plain)
                own = replace(started, on_progress=_teller(pipe))
        except YodaError as error:
            pipe.send((Word.UNABLE, str(error)))
            return
        pipe.send((Word.READY, None))
        while True:
            item = pipe.recv()
            try:
                pipe.send((Word.DONE, own.do(item)))
            except YodaError as error:
                pipe.send((Word.FAILED, error))


def _teller(pipe: Connection) -> Callable[[float], None]:
    """Says which share of a picture is done, now and then."""
    told = 0.0

    def tell(share: float) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            pipe.send((Word.SHARE, share))

    return tell


class NoWorkersError(YodaError):
    """No worker process could begin; its text is the reason."""


def run_workers(
    batch: Batch, options: UpscaleOptions, writing: WriteOptions, events: Events, jobs: int,
    *, instead: Callable[[Sequence[Item]], list[Failure]], fail_fast: bool = False,
    plain: bool = False,
) -> list[Failure]:  # fmt: skip
    """All items on ``jobs`` processes, or by ``instead`` where none can begin. ``plain``: by
    ncnn."""
    with Crew(__name__, serve.__name__) as crew:
        run = _Run(crew, batch, options, writing, events, jobs, fail_fast, plain)
        try:
            run.go(batch.items, jobs)
            for item in tuple(run.suspects):  # alone, so that none fails for its neighbour
                if not run.is_over:
                    run.go([item], 1)
            return run.failures
        except NoWorkersError as error:
            events.on_notice(f"no worker process can begin ({error}): working without")
    left = [item for item in batch.items if item in run.left and item not in run.suspects]
    for item in run.suspects & run.left.keys():  # what ended a worker may end this process too
        run.fail(item, DeviceError(f"a worker died on {item.source}, and no other can begin"))
    return [*run.failures, *(instead(left) if left and not run.is_over else [])]


@dataclass
class _Run:
    """What became of the pictures so far: ``left`` have no result yet."""

    crew: Crew
    batch: Batch
    options: UpscaleOptions
    writing: WriteOptions
    events: Events
    jobs: int
    fail_fast: bool
    plain: bool
    failures: list[Failure] = field(default_factory=list)
    suspects: set[Item] = field(default_factory=set)  # a worker died while it made them
    left: dict[Item, None] = field(init=False)
    reason: str = ""  # why a worker could not begin

    def __post_init__(self) -> None:
        self.left = dict.fromkeys(self.batch.items)
        self.devices = devices_for(self.options, self.jobs, plain=self.plain)

    @property
    def is_over(self) -> bool:
        """Whether the first failure ended the run."""
        return self.fail_fast and bool(self.failures)

    def go(self, items: Sequence[Item], jobs: int) -> None:
        """Make ``items``, ``jobs`` at a time. Those whose worker died become suspects."""
        waiting = deque(enumerate(items))
        free = sorted(set(range(self.jobs)) - {worker.place for worker in self.crew.workers})
        for place in free[: max(0, min(jobs, len(items)) - len(self.crew.workers))]:
            self.hire(place)
        while waiting or any(worker.task is not None for worker in self.crew.workers):
            idle = [w for w in self.crew.workers if w.is_ready and w.task is None]
            for worker in idle[: len(waiting)]:
                worker.give(*waiting.popleft())
            for worker, word, what in self.crew.listen():
                self.hear(worker, word, what, items)
                if self.is_over:
                    return
                if word is Word.DIED and worker.is_ready and waiting:
                    self.hire(worker.place)
            if waiting and not self.crew.workers:
                raise NoWorkersError(self.reason)

    def hire(self, place: int) -> None:
        """One worker more, on the device of its place; fewer will do where the system has none."""
        options = replace(self.options, device=self.devices[place])
        count = threads_each(self.jobs, self.options.exact)
        try:
            self.crew.hire(place, options, self.writing, count, self.plain)
        except (OSError, RuntimeError) as error:
            self.reason = NO_MEMORY if is_out_of_memory(error) else why_none(error)
            if not self.crew.workers:
                raise NoWorkersError(self.reason) from error

    def hear(self, worker: Hand, word: Word, what: Any, items: Sequence[Item]) -> None:
        """Take note of what a worker said, of itself or of its picture."""
        if word is Word.UNABLE:
            self.reason = what
        elif word is Word.DIED and not worker.is_ready:
            self.reason = self.reason or why_none(what)
        if worker.task is None:
            return
        item = items[worker.task]
        if word is Word.SHARE:
            self.events.on_progress(item, what)
            return
        worker.task = None
        if word is Word.DONE:
            self.left.pop(item)
            record_in_manifest(self.batch, item, what, self.events)
        elif word is Word.FAILED:
            self.fail(item, what)
        elif item in self.suspects:
            self.fail(item, DeviceError(f"a worker died twice on {item.source}"))
        else:
            self.suspects.add(item)

    def fail(self, item: Item, error: YodaError) -> None:
        """A picture cannot be made."""
        self.left.pop(item)
        self.failures.append(report_failure(Failure(item.source, error), self.events))
