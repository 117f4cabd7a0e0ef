"""A batch on several processes of this machine, each with a model and its share of the threads.

A worker that dies is replaced and its picture done again, once; no picture is lost silently.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import RawArray
from threading import Event, Thread
from typing import Any

import torch

from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import DeviceError, YodaError, name_surprises
from yoda_cli.models.model import Model
from yoda_cli.upscaling.animation import is_held, make_in_parts
from yoda_cli.upscaling.batch import lifeline
from yoda_cli.upscaling.batch.plan import Batch, Events, Failure, record_in_manifest, report_failure
from yoda_cli.upscaling.batch.record import record_of
from yoda_cli.upscaling.picture import Item, compute, read, write
from yoda_cli.upscaling.pipeline import get_model
from yoda_cli.upscaling.progress import PictureProgress

LOOK_SECONDS = 0.25  # between two looks at the workers' progress
NOTHING, ALL_BUT = -1.0, 0.999  # a worker without a picture; the most that a picture's share says


@dataclass(frozen=True)
class Worker:
    """A model in a process of its own."""

    model: Model
    options: UpscaleOptions
    writing: WriteOptions

    on_progress: Callable[[float], None] = lambda share: None

    @staticmethod
    def start(options: UpscaleOptions, writing: WriteOptions, threads: int) -> Worker:
        torch.set_num_threads(threads)
        return Worker(get_model(options), options, writing)

    def do(self, item: Item) -> dict[str, Any]:
        """Read, enlarge and write one picture; its record."""
        with name_surprises(str(item.source)):
            observer = PictureProgress.of(item, self.model, self.on_progress).observer
            if is_held(item, self.model, self.options, observer):
                computed = compute(item, read(item), self.model, self.options, observer)
                done = write(item, computed, self.model, self.writing)
            else:
                done = make_in_parts(item, self.model, self.options, self.writing, observer)
            return record_of(done, self.model)


def threads_each(jobs: int, exact: bool) -> int:
    """The cores a process may use, shared among the workers."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 1 if exact else max(1, min(torch.get_num_threads(), usable or 1) // jobs)


def devices_for(options: UpscaleOptions, jobs: int) -> list[str]:
    """One device per worker: all CUDA devices in turn, or the one that was asked for."""
    count = torch.cuda.device_count() if options.device in ("auto", "cuda") else 0
    return [f"cuda:{i % count}" if count else options.device for i in range(jobs)]


_worker: Worker | None = None  # of this process, if it is one
_item = 0  # the number of the picture that it makes


def _begin(
    options: UpscaleOptions, writing: WriteOptions, threads: int, devices: Any, shares: Any
) -> None:
    global _worker
    place, device = devices.get()

    def tell(share: float) -> None:
        shares[place] = _item + min(share, ALL_BUT)  # one write: nothing to lock, nothing to break

    own = Worker.start(replace(options, device=device), writing, threads)
    _worker = replace(own, on_progress=tell)


def _do(item: Item, number: int) -> dict[str, Any]:
    global _item
    assert _worker is not None
    _item = number
    return _worker.do(item)


@contextmanager
def _pool(
    options: UpscaleOptions, writing: WriteOptions, jobs: int, shares: Any
) -> Iterator[ProcessPoolExecutor]:
    """Processes that are gone when the context is left, however it is left.

    Each writes the number of its picture plus the share that is done to its place in ``shares``.
    """
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    devices = context.Queue()
    for place in enumerate(devices_for(options, jobs)):
        devices.put(place)
    threads = threads_each(jobs, options.exact)
    arguments = (reader, __name__, _begin.__name__, options, writing, threads, devices, shares)
    pool = ProcessPoolExecutor(jobs, context, lifeline.begin, arguments)
    try:
        yield pool
    except BaseException:
        writer.close()  # ends the workers of this pool, and no other child of this process
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        writer.close()
        reader.close()


def run_workers(
    batch: Batch, options: UpscaleOptions, writing: WriteOptions, events: Events, jobs: int,
    *, fail_fast: bool = False,
) -> list[Failure]:  # fmt: skip
    """All items on ``jobs`` processes."""
    failures: list[Failure] = []
    left = list(batch.items)
    while left and not (failures and fail_fast):
        left = _round(left, batch, options, writing, events, jobs, failures, fail_fast)
        # A worker died on one of the first: each alone, so that none fails for its neighbour.
        suspects, left = left[:jobs], left[jobs:]
        for item in suspects:
            if _round([item], batch, options, writing, events, 1, failures, fail_fast):
                error = DeviceError(f"a worker died twice on {item.source}")
                failures.append(report_failure(Failure(item.source, error), events))
    return failures


@contextmanager
def _watched(shares: Any, items: Sequence[Item], events: Events) -> Iterator[None]:
    """Tell of the workers' progress while the context lasts."""
    ended = Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            for value in list(shares):
                if value >= 0:
                    events.on_progress(items[int(value)], value % 1)

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _round(
    items: Sequence[Item], batch: Batch, options: UpscaleOptions, writing: WriteOptions,
    events: Events, jobs: int, failures: list[Failure], fail_fast: bool,
) -> list[Item]:  # fmt: skip
    """Work until all is done or a worker dies; what is left."""
    left = dict.fromkeys(items)
    shares = RawArray("d", [NOTHING] * jobs)
    with _pool(options, writing, jobs, shares) as pool, _watched(shares, items, events):
        with lifeline.interrupts_held():
            futures = {pool.submit(_do, item, n): item for n, item in enumerate(items)}
        for future in as_completed(futures):
            item = futures[future]
            try:
                record = future.result()
            except BrokenProcessPool:
                break
            except YodaError as error:
                failures.append(report_failure(Failure(item.source, error), events))
                del left[item]
                if fail_fast:
                    return []
                continue
            del left[item]
            record_in_manifest(batch, item, record, events)
    return list(left)
