"""Pictures of a folder in this process: the next are read while some are computed, and the last
written. Small ones of one size are computed together."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import YodaError, name_surprises, without_frames
from yoda_cli.models.model import Model
from yoda_cli.upscaling.animation import is_held, make_in_parts
from yoda_cli.upscaling.batch.groups import compute_together, groups_of
from yoda_cli.upscaling.batch.plan import Batch, Events, Failure, record_in_manifest, report_failure
from yoda_cli.upscaling.batch.record import record_of
from yoda_cli.upscaling.picture import (
    Computed,
    Decoded,
    Finished,
    Item,
    compute,
    read,
    write,
)
from yoda_cli.upscaling.result import Observer

#: Input pixels up to which pictures are read ahead and written behind. Both take 5 to 6 % of a
#: run's processor seconds, whatever the size; such a picture and its result take 214 MB
#: (`scripts/measure_constants.py AHEAD_PIXELS`).
AHEAD_PIXELS = 1 << 20

Observing = Callable[[Item], contextlib.AbstractContextManager[Observer]]


def run_here(
    batch: Batch, model: Model, options: UpscaleOptions, writing: WriteOptions, events: Events,
    observer_of: Observing, *, stream: bytes | None = None, fail_fast: bool = False,
    apart: bool = False,
    on_done: Callable[[Finished], None] = lambda done: None,
) -> list[Failure]:  # fmt: skip
    """The items of ``batch`` in their order; those that could not be made.

    ``apart`` computes none together: an observer that looks inside is for one picture.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        run = _Run(batch, model, options, writing, events, observer_of, on_done, writer, stream)
        each: Iterator[Sequence[Item]] = ([item] for item in batch.items)
        groups = each if apart else groups_of(batch.items, model, options)
        try:
            for items, decoded in read_ahead(reader, groups, stream, plain=model.is_plain):
                run.make(items, decoded)
                if run.failures and fail_fast:
                    break
            run.drain(0)
        except KeyboardInterrupt:
            reader.shutdown(wait=False, cancel_futures=True)
            run.end()
            raise
    return run.failures


@dataclass(frozen=True)
class _Run:
    """What becomes of items that were read: ``behind`` are being written."""

    batch: Batch
    model: Model
    options: UpscaleOptions
    writing: WriteOptions
    events: Events
    observer_of: Observing
    on_done: Callable[[Finished], None]
    writer: ThreadPoolExecutor
    stream: bytes | None = None
    failures: list[Failure] = field(default_factory=list)
    behind: deque[tuple[Item, Future[Finished]]] = field(default_factory=deque)

    def make(self, items: Sequence[Item], decoded: Callable[[], Sequence[Future[Decoded]]]) -> None:
        """Compute items, together if there are several, and hand them to the writer."""
        if len(items) == 1:
            self._one(items[0], lambda: decoded()[0].result())
        else:
            self._several(items, decoded())
        self.drain(len(items) if _is_small(items[0]) else 0)

    def _one(self, item: Item, frames: Callable[[], Decoded]) -> None:
        with self._failing(item), self.observer_of(item) as observer:
            if not is_held(item, self.model, self.options, observer):
                self.drain(0)
                done = make_in_parts(
                    item, self.model, self.options, self.writing, observer, self.stream
                )
                self.on_done(done)
                self._enter(item, done)
                return
            self._write(item, compute(item, frames(), self.model, self.options, observer))

    def _several(self, items: Sequence[Item], frames: Sequence[Future[Decoded]]) -> None:
        read: dict[Item, Decoded] = {}
        for item, future in zip(items, frames, strict=True):
            with self._failing(item):
                read[item] = future.result()
        made: dict[Item, Computed] = {}
        with contextlib.suppress(YodaError):  # alone each of them says what is wrong
            made = compute_together(read, self.model, self.options, self.observer_of)
        for item, decoded in read.items():
            if item in made:
                self._write(item, made[item])
            else:
                self._one(item, lambda decoded=decoded: decoded)  # type: ignore[misc]

    def _write(self, item: Item, computed: Computed) -> None:
        written = self.writer.submit(write, item, computed, self.model, self.writing)
        self.behind.append((item, written))

    def _enter(self, item: Item, done: Finished) -> None:
        record_in_manifest(self.batch, item, record_of(done, self.model), self.events)

    @contextlib.contextmanager
    def _failing(self, item: Item) -> Iterator[None]:
        """What goes wrong with one picture is said, and ends no other."""
        try:
            with name_surprises(str(item.source)):
                yield
        except YodaError as error:
            if len(self.batch.items) > 1:  # else --debug shows where it was
                without_frames(error)
            self.failures.append(report_failure(Failure(item.source, error), self.events))

    def end(self) -> None:
        """Interrupted: what is being written is finished and entered, what waits for it is not."""
        for each in [each for each in self.behind if each[1].cancel()]:
            self.behind.remove(each)
        self.drain(0)

    def drain(self, keep: int) -> None:
        """Wait until no more than ``keep`` pictures are being written."""
        while len(self.behind) > keep:
            item, written = self.behind[0]
            wait([written])  # an interruption here leaves it to be waited for
            self.behind.popleft()
            with self._failing(item):
                done = written.result()
                self.on_done(done)
                self._enter(item, done)


def read_ahead(
    reader: ThreadPoolExecutor,
    groups: Iterator[Sequence[Item]],
    stream: bytes | None,
    *,
    plain: bool = False,
) -> Iterator[tuple[Sequence[Item], Callable[[], Sequence[Future[Decoded]]]]]:
    """Every group and what gives its frames; a small one is read while the one before is used."""

    def begin(items: Sequence[Item]) -> list[Future[Decoded]]:
        return [reader.submit(read, item, stream, plain=plain) for item in items]

    now: Sequence[Item] | None = next(groups, None)
    begun: list[Future[Decoded]] | None = None
    while now is not None:
        following = next(groups, None)
        ahead: list[Future[Decoded]] | None = None
        if following is not None and _is_read_ahead(now[0]) and _is_read_ahead(following[0]):
            begun = begun or begin(now)
            ahead = begin(following)
        yield now, lambda items=now, begun=begun: begun or begin(items)  # type: ignore[misc]
        now, begun = following, ahead


def _is_read_ahead(item: Item) -> bool:
    return _is_small(item) and not item.is_animated


def _is_small(item: Item) -> bool:
    return item.pixels <= AHEAD_PIXELS
