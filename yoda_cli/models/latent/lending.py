"""The networks of a latent model: their weights are there while they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from yoda_cli.devices.out_of_memory import free_memory
from yoda_cli.models.latent.components import MARGIN, Components
from yoda_cli.models.latent.denoising import LatentDenoiser

N = TypeVar("N", bound=LatentDenoiser)
Source = Callable[[], tuple[Mapping[str, Tensor], str]]  # tensors, and the name of their file


@dataclass(eq=False)
class Networks(Generic[N]):
    """``net`` with its weights inside ``lent``; ``sources`` are those of its parts, by name.

    Where a GPU has room for one part at a time they are offloaded.
    """

    parts: Components
    net: N
    sources: Mapping[str, Source]

    def check_memory(self, beside: int = 0) -> None:
        """DeviceError where the networks will not fit with ``beside`` bytes of other things."""
        if not self.net.is_empty:
            return
        size = torch.finfo(self.parts.precision).bits / 8 * MARGIN
        shares = [values_of(self.net.get_submodule(part)) * size for part in self.sources]
        is_cuda = self.parts.device.type == "cuda"
        self.net.offloaded = is_cuda and max(shares) < self.parts.free - beside < sum(shares)
        if not self.net.offloaded:
            self.parts.check_memory(values_of(self.net), beside)

    def load(self, beside: int = 0) -> None:
        """All weights into ``net``, unless they are there."""
        if not self.net.is_empty:
            return
        self.check_memory(beside)
        where = torch.device("cpu") if self.net.offloaded else self.parts.device
        for part, source in self.sources.items():
            state, name = source()
            self.net.fill(part, state, name, where, self.parts.precision)

    @contextmanager
    def lent(self) -> Iterator[N]:
        """Kept for the next picture where there is room."""
        self.load()
        try:
            yield self.net
        finally:
            if not self.parts.has_room:
                self.net.unload()
                free_memory()


def values_of(net: nn.Module) -> int:
    """How many numbers a network holds."""
    return sum(parameter.numel() for parameter in net.parameters())
