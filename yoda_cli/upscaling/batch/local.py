"""Pictures of a folder one after another in this process; the next is read meanwhile."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import YodaError, name_surprises
from yoda_cli.models.model import Model
from yoda_cli.upscaling.animation import is_held, make_in_parts
from yoda_cli.upscaling.batch.plan import Batch, Events, Failure, record_in_manifest, report_failure
from yoda_cli.upscaling.batch.record import record_of
from yoda_cli.upscaling.picture import Decoded, Finished, Item, compute, read, write
from yoda_cli.upscaling.result import Observer

TOGETHER_PIXELS = 1 << 20  # input pixels up to which pictures are read ahead and written behind


def run_here(
    batch: Batch, model: Model, options: UpscaleOptions, writing: WriteOptions, events: Events,
    observer_of: Callable[[Item], contextlib.AbstractContextManager[Observer]], *,
    stream: bytes | None = None, fail_fast: bool = False,
    on_done: Callable[[Finished], None] = lambda done: None,
) -> list[Failure]:  # fmt: skip
    """One picture after another in this process; small ones are read ahead and written behind."""
    failures: list[Failure] = []
    behind: deque[tuple[Item, Future[Finished]]] = deque()

    def drain(keep: int) -> None:
        while len(behind) > keep:
            item, written = behind.popleft()
            try:
                with name_surprises(str(item.source)):
                    done = written.result()
                    on_done(done)
                record_in_manifest(batch, item, record_of(done, model), events)
            except YodaError as error:
                failures.append(report_failure(Failure(item.source, error), events))

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        for item, frames in read_ahead(reader, batch.items, stream):
            try:
                with name_surprises(str(item.source)), observer_of(item) as observer:
                    if not is_held(item, model, options, observer):
                        drain(0)
                        done = make_in_parts(item, model, options, writing, observer, stream)
                        on_done(done)
                        record_in_manifest(batch, item, record_of(done, model), events)
                        continue
                    computed = compute(item, frames().result(), model, options, observer)
                behind.append((item, writer.submit(write, item, computed, model, writing)))
            except YodaError as error:
                failures.append(report_failure(Failure(item.source, error), events))
            drain(1 if _is_small(item) else 0)
            if failures and fail_fast:
                break
        drain(0)
    return failures


def read_ahead(
    reader: ThreadPoolExecutor, items: Sequence[Item], stream: bytes | None
) -> Iterator[tuple[Item, Callable[[], Future[Decoded]]]]:
    """Every item and what gives its frames; a small one is read while the one before is used."""
    ahead: Future[Decoded] | None = None
    for index, item in enumerate(items):
        now, ahead = ahead, None
        if index + 1 < len(items) and _is_read_ahead(items[index + 1]) and _is_read_ahead(item):
            now = now or reader.submit(read, item, stream)
            ahead = reader.submit(read, items[index + 1], stream)
        yield item, partial(_reading, now, reader, item, stream)


def _reading(
    begun: Future[Decoded] | None, reader: ThreadPoolExecutor, item: Item, stream: bytes | None
) -> Future[Decoded]:
    return begun or reader.submit(read, item, stream)


def _is_read_ahead(item: Item) -> bool:
    return _is_small(item) and not item.is_animated


def _is_small(item: Item) -> bool:
    return item.pixels <= TOGETHER_PIXELS
