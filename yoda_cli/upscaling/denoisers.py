"""The network run over a plan's tiles, in groups, going on with less where memory runs out.

Knows the plan and the model; the loop is ``yoda.masked_sample``.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from yoda_cli.devices.out_of_memory import Counter, free_memory, is_out_of_memory
from yoda_cli.errors import DeviceError
from yoda_cli.models import Condition, crop_condition
from yoda_cli.models.model import Model
from yoda_cli.tiling.overlap import gaussian_weights
from yoda_cli.tiling.plan import MIN_TILE, Plan
from yoda_cli.tiling.windows import Tile, Window, halves

log = logging.getLogger(__name__)

IN_HISTORY = 2  # estimates that a multi-step sampler looks back on
GROUP_PIXELS = 1 << 20  # windows that go through a GPU together have no more pixels than this


@dataclass(frozen=True)
class TiledDenoiser:
    """ẑ_0 of a whole canvas from the tiles that its plan runs; elsewhere it is 0 and never read.

    Windows of one shape go through the network together, ``group`` at a time; a CPU takes them
    one by one, because it rounds by the size of the group.
    """

    model: Model
    condition: Condition
    plan: Plan
    halo: int
    group: int = 1
    counter: Counter = field(default_factory=Counter)
    canvases: list[Tensor] = field(default_factory=list)

    def __call__(self, z_t: Tensor, t: int, mask: Tensor) -> Tensor:
        out = self.canvas(z_t)
        for tiles in self.groups(self.plan.tiles(self.plan.timesteps.index(t))):
            self.run(tiles, z_t, t, mask, out)
        return out

    def canvas(self, like: Tensor) -> Tensor:
        """Zeros. Fresh memory is slow to come by: those of earlier calls are taken in turn, each
        once no sampler's history can hold it any longer."""
        used = len(self.canvases) == IN_HISTORY + 1
        out = self.canvases.pop(0).zero_() if used else torch.zeros_like(like)
        self.canvases.append(out)
        return out

    def groups(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, ...]]:
        """Tiles of one window shape, as many as may go together."""

        def shape(tile: Tile) -> tuple[int, int]:
            return tile.window.height, tile.window.width

        ordered = sorted(tiles, key=shape) if self.group > 1 else tiles
        for (height, width), members in itertools.groupby(ordered, shape):
            most = max(1, min(self.group, GROUP_PIXELS // (height * width)))
            yield from _batched(members, most)

    def run(self, tiles: Sequence[Tile], z_t: Tensor, t: int, mask: Tensor, out: Tensor) -> None:
        """Fill the cores of ``tiles`` in ``out``."""
        try:
            self.predict(tiles, z_t, t, mask, out)
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            log.warning("out of memory with %d windows of %s", len(tiles), tiles[0].window)
        free_memory()  # outside the handler, where the traceback no longer holds tensors
        self.recover(tiles, z_t, t, mask, out)

    def recover(
        self, tiles: Sequence[Tile], z_t: Tensor, t: int, mask: Tensor, out: Tensor
    ) -> None:
        """The same work in smaller portions: half the group, the same again, half the tile."""
        if len(tiles) > 1:
            self.counter.smaller_groups += 1
            middle = len(tiles) // 2
            self.run(tiles[:middle], z_t, t, mask, out)
            self.run(tiles[middle:], z_t, t, mask, out)
            return
        try:
            self.predict(tiles, z_t, t, mask, out)
            self.counter.repeated += 1
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        free_memory()
        align = self.model.backbone.stride * self.model.backbone.scale
        core = tiles[0].core
        if max(core.height, core.width) <= max(MIN_TILE, align):
            raise DeviceError(
                f"out of memory on {self.model.device} even with a tile of "
                f"{core.width}×{core.height} pixels"
            )
        self.counter.smaller_tiles += 1
        height, width = z_t.shape[-2:]
        for half in halves(tiles[0], self.halo, align, height, width):
            self.run([half], z_t, t, mask, out)

    def predict(
        self, tiles: Sequence[Tile], z_t: Tensor, t: int, mask: Tensor, out: Tensor
    ) -> None:
        """One network call for windows of one shape."""
        windows = [tile.window for tile in tiles]
        seen = [crop_condition(self.condition, window) for window in windows]
        with self.model.context():
            z_0 = self.model.backbone.predict(
                torch.cat([window.cut(z_t) for window in windows]),
                t,
                seen[0] if len(seen) == 1 else joined(seen),
                torch.cat([window.cut(mask) for window in windows]),
            )
        for tile, result in zip(tiles, torch.split(z_0, 1), strict=True):
            tile.paste(out, result)
        self.counter.count(len(tiles))


def _batched(tiles: Iterator[Tile], most: int) -> Iterator[tuple[Tile, ...]]:
    while group := tuple(itertools.islice(tiles, most)):
        yield group


def joined(conditions: Sequence[Condition]) -> Condition:
    """Conditions of equal windows, one after another."""
    first = conditions[0]
    return Condition(
        torch.cat([c.z_lr for c in conditions]),
        {name: torch.cat([c.maps[name] for c in conditions]) for name in first.maps},
    )


@dataclass
class WindowedDenoiser:
    """ẑ_0 of a whole canvas from overlapping windows; where none ran it is 0 and never read.

    At an active pixel every window that covers it ran, in an order that does not depend on idle
    ones: the same bytes with and without them.
    """

    model: Model
    condition: Condition
    plan: Plan
    group: int = 1
    counter: Counter = field(default_factory=Counter)

    def __call__(self, z_t: Tensor, t: int, mask: Tensor) -> Tensor:
        total = torch.zeros_like(z_t)
        weights = torch.zeros_like(z_t[:, :1])
        tiles = self.plan.tiles(self.plan.timesteps.index(t))
        for start in range(0, len(tiles), self.group):
            windows = [tile.window for tile in tiles[start : start + self.group]]
            for window, z_0 in zip(windows, self.run(windows, z_t, t, mask), strict=True):
                weight = gaussian_weights(window.height, window.width).to(z_0)
                window.cut(total).add_(z_0 * weight)
                window.cut(weights).add_(weight)
        return torch.where(weights > 0, total / weights, 0.0)

    def run(self, windows: Sequence[Window], z_t: Tensor, t: int, mask: Tensor) -> list[Tensor]:
        """ẑ_0 of every window; where memory runs out in halves, one alone once more."""
        for again in (False, True):
            try:
                found = self.predict(windows, z_t, t, mask)
                self.counter.repeated += int(again)
                return found
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            free_memory()
            if len(windows) > 1:
                self.counter.smaller_groups += 1
                middle = len(windows) // 2
                halves = (windows[:middle], windows[middle:])
                return [z_0 for half in halves for z_0 in self.run(half, z_t, t, mask)]
        raise DeviceError(
            f"out of memory on {self.model.device} with one window of "
            f"{8 * windows[0].width}×{8 * windows[0].height} pixels; give a smaller --tile"
        )

    def predict(self, windows: Sequence[Window], z_t: Tensor, t: int, mask: Tensor) -> list[Tensor]:
        """One network call."""
        seen = joined([crop_condition(self.condition, window) for window in windows])
        states = torch.cat([window.cut(z_t) for window in windows])
        masks = torch.cat([window.cut(mask) for window in windows])
        with self.model.context():
            z_0 = self.model.backbone.predict(states, t, seen, masks)
        self.counter.count(len(windows))
        return list(torch.split(z_0, 1))
