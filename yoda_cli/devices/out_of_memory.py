"""When memory runs out: telling it from other errors, giving it back, counting what helped."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch

from yoda_cli.devices.memory import give_back


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


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine had no memory left; torch says so in several ways."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def free_memory() -> None:
    """Give back what is no longer used."""
    gc.collect()
    give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
