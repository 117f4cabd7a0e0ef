"""When memory runs out: telling it from other errors, giving it back, counting what helped."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from yoda_cli.devices.memory import trim_heap
from yoda_cli.errors import DeviceError, is_out_of_memory

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Recovered:
    """How often memory ran out, and what went on: the same call, a smaller group or tile."""

    repeated: int = 0
    smaller_groups: int = 0
    smaller_tiles: int = 0

    def __bool__(self) -> bool:
        return bool(self.repeated or self.smaller_groups or self.smaller_tiles)

    def __add__(self, other: Recovered) -> Recovered:
        return Recovered(
            self.repeated + other.repeated,
            self.smaller_groups + other.smaller_groups,
            self.smaller_tiles + other.smaller_tiles,
        )


@dataclass
class Counter:
    """What the network was asked for: windows, and how often memory ran out and what helped."""

    on_call: Callable[[], None] = lambda: None
    calls: int = 0
    repeated: int = 0
    smaller_groups: int = 0
    smaller_tiles: int = 0

    def count(self, windows: int) -> None:
        for _ in range(windows):
            self.calls += 1
            self.on_call()

    def recovered(self) -> Recovered:
        """So far."""
        return Recovered(self.repeated, self.smaller_groups, self.smaller_tiles)


def run_with_less_memory(
    items: Sequence[T], work: Callable[[Sequence[T]], None], smaller: Callable[[T], Sequence[T]],
    counter: Counter, refusal: Callable[[T], str],
) -> None:  # fmt: skip
    """``work(items)``; where memory runs out the same in smaller portions.

    Half the group, then the same once more, then what ``smaller`` cuts one item into. Where it
    gives nothing a DeviceError says ``refusal``. ``work`` must change nothing before it succeeds.
    """
    if _succeeds(items, work):
        return
    if len(items) > 1:
        counter.smaller_groups += 1
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            run_with_less_memory(half, work, smaller, counter, refusal)
        return
    if _succeeds(items, work):
        counter.repeated += 1
        return
    parts = smaller(items[0])
    if not parts:
        raise DeviceError(refusal(items[0]))
    counter.smaller_tiles += 1
    for part in parts:
        run_with_less_memory([part], work, smaller, counter, refusal)


def _succeeds(items: Sequence[T], work: Callable[[Sequence[T]], None]) -> bool:
    try:
        work(items)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        log.warning("out of memory with %d of %s", len(items), items[0])
    else:
        return True
    free_memory()  # outside the handler, where the traceback no longer holds tensors
    return False


def free_memory() -> None:
    """Give back what is no longer used."""
    gc.collect()
    trim_heap()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()
