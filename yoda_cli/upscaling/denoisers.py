"""The network run over a plan's tiles, in groups, going on with less where memory runs out.

Knows the plan and the model; the loop is ``yoda.masked_sample``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from yoda_cli.arrays import joined, where, zeros
from yoda_cli.config import MIN_TILE
from yoda_cli.devices.out_of_memory import Counter, run_with_less_memory
from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.models.base import Condition, crop_condition, stack_conditions
from yoda_cli.models.model import Model
from yoda_cli.tiling.overlap import gaussian_weights
from yoda_cli.tiling.plan import Plan
from yoda_cli.tiling.windows import Tile, Window, halves

if TYPE_CHECKING:
    from torch import Tensor

IN_HISTORY = max(sampler.history for sampler in SAMPLERS.values())
#: Windows that go through a GPU together have no more pixels than this. Chosen, not measured, as
#: ``resolve.GROUP``: four windows of 512 pixels a side keep any GPU busy.
GROUP_PIXELS = 1 << 20


def call_network(
    model: Model, condition: Condition, windows: Sequence[Window], z_t: Tensor, t: int,
    mask: Tensor,
) -> Sequence[Tensor]:  # fmt: skip
    """ẑ_0 (1, C, h, w) of each of ``windows``, which have one shape, by one network call."""
    count = len(windows)
    return run_network(model, [condition] * count, windows, [z_t] * count, t, [mask] * count)


def run_network(
    model: Model, conditions: Sequence[Condition], windows: Sequence[Window],
    states: Sequence[Tensor], t: int, masks: Sequence[Tensor],
) -> Sequence[Tensor]:  # fmt: skip
    """The same for windows of one shape, each of a canvas of its own."""
    cuts = [crop_condition(condition, w) for condition, w in zip(conditions, windows, strict=True)]
    with model.context():
        z_0 = model.backbone.predict(
            joined([window.cut(z_t) for window, z_t in zip(windows, states, strict=True)]),
            t,
            stack_conditions(cuts),
            joined([window.cut(mask) for window, mask in zip(windows, masks, strict=True)]),
        )
    return [z_0[i : i + 1] for i in range(len(windows))]


def halves_of(tile: Tile, model: Model, halo: int, size: Sequence[int]) -> Sequence[Tile]:
    """Half of a tile's core and the other, where it may be cut further; ``size`` is the canvas's
    height and width."""
    align = model.backbone.geometry.align
    if max(tile.core.height, tile.core.width) <= max(MIN_TILE, align):
        return ()
    height, width = size
    return halves(tile, halo, align, height, width)


def tile_refusal(tile: Tile, model: Model) -> str:
    """What is said where the smallest tile is too large."""
    size = f"{tile.core.width}×{tile.core.height}"
    return f"out of memory on {model.device} even with a tile of {size} pixels"


@dataclass(frozen=True)
class TiledDenoiser:
    """ẑ_0 of a whole canvas from the tiles that its plan runs; elsewhere it is 0 and never read.

    Windows of one shape go through the network together, ``group`` at a time; a CPU takes them
    one by one, because it rounds by the size of the group. ``canvases`` are filled again and again.
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

        def work(tiles: Sequence[Tile]) -> None:
            windows = [tile.window for tile in tiles]
            results = call_network(self.model, self.condition, windows, z_t, t, mask)
            for tile, result in zip(tiles, results, strict=True):
                tile.paste(out, result)
            self.counter.count(len(tiles))

        def smaller(tile: Tile) -> Sequence[Tile]:
            return halves_of(tile, self.model, self.halo, z_t.shape[-2:])

        def refusal(tile: Tile) -> str:
            return tile_refusal(tile, self.model)

        for tiles in self.groups(self.plan.tiles(self.plan.timesteps.index(t))):
            run_with_less_memory(tiles, work, smaller, self.counter, refusal)
        return out

    def canvas(self, like: Tensor) -> Tensor:
        """Zeros. Fresh memory is slow to come by: those of earlier calls are taken in turn, each
        once no sampler's history can hold it any longer."""
        used = len(self.canvases) == IN_HISTORY + 1
        out = self.canvases.pop(0) if used else zeros(like, *like.shape)
        if used:
            out[...] = 0
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


def _batched(tiles: Iterator[Tile], most: int) -> Iterator[tuple[Tile, ...]]:
    while group := tuple(itertools.islice(tiles, most)):
        yield group


@dataclass(frozen=True)
class Canvas:
    """A canvas that stands at some time, and the tiles of it that are to be computed."""

    denoiser: TiledDenoiser
    z_t: Tensor
    mask: Tensor
    tiles: Sequence[Tile]


def denoise_together(canvases: Sequence[Canvas], t: int) -> list[Tensor]:
    """ẑ_0 of each of ``canvases``, which are of one model and stand at time t.

    Tiles of different canvases share a call too.
    """
    first = canvases[0].denoiser
    model, counter = first.model, first.counter
    made = [canvas.denoiser.canvas(canvas.z_t) for canvas in canvases]

    def work(items: Sequence[tuple[int, Tile]]) -> None:
        of = [canvases[i] for i, _ in items]
        results = run_network(
            model, [canvas.denoiser.condition for canvas in of],
            [tile.window for _, tile in items], [canvas.z_t for canvas in of], t,
            [canvas.mask for canvas in of],
        )  # fmt: skip
        for (i, tile), result in zip(items, results, strict=True):
            tile.paste(made[i], result)
        counter.count(len(items))

    def smaller(item: tuple[int, Tile]) -> Sequence[tuple[int, Tile]]:
        i, tile = item
        size = canvases[i].z_t.shape[-2:]
        return [(i, half) for half in halves_of(tile, model, first.halo, size)]

    def refusal(item: tuple[int, Tile]) -> str:
        return tile_refusal(item[1], model)

    items = [(i, tile) for i, canvas in enumerate(canvases) for tile in canvas.tiles]
    for group in grouped(items, first.group):
        run_with_less_memory(group, work, smaller, counter, refusal)
    return made


def grouped(
    items: Sequence[tuple[int, Tile]], largest: int
) -> Iterator[tuple[tuple[int, Tile], ...]]:
    """Tiles of one window shape, as many as may go together: at most ``largest``."""

    def shape(item: tuple[int, Tile]) -> tuple[int, int]:
        return item[1].window.height, item[1].window.width

    ordered = sorted(items, key=shape) if largest > 1 else items
    for (height, width), members in itertools.groupby(ordered, shape):
        most = max(1, min(largest, GROUP_PIXELS // (height * width)))
        while group := tuple(itertools.islice(members, most)):
            yield group


@dataclass(frozen=True)
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
        total = zeros(z_t, *z_t.shape)
        weights = zeros(z_t, *z_t[:, :1].shape)

        def work(windows: Sequence[Window]) -> None:
            results = call_network(self.model, self.condition, windows, z_t, t, mask)
            for window, z_0 in zip(windows, results, strict=True):
                weight = gaussian_weights(window.height, window.width).to(z_0)
                window.cut(total).add_(z_0 * weight)
                window.cut(weights).add_(weight)
            self.counter.count(len(windows))

        tiles = self.plan.tiles(self.plan.timesteps.index(t))
        for start in range(0, len(tiles), self.group):
            windows = [tile.window for tile in tiles[start : start + self.group]]
            run_with_less_memory(windows, work, lambda _: (), self.counter, self.refusal)
        return where(weights > 0, total / weights, 0.0)

    def refusal(self, window: Window) -> str:
        """What is said where one window is too large."""
        return (
            f"out of memory on {self.model.device} with one window of "
            f"{8 * window.width}×{8 * window.height} pixels; give a smaller --tile"
        )


@dataclass
class RefiningDenoiser:
    """A denoiser whose condition is made again before every step but the first.

    ``refine`` makes it of the old one and of the last estimate, z_lr where nothing was refined.
    """

    denoiser: WindowedDenoiser
    refine: Callable[[Condition, Tensor], Condition]
    z_0: Tensor | None = None

    def __call__(self, z_t: Tensor, t: int, mask: Tensor) -> Tensor:
        if self.z_0 is not None:
            condition = self.refine(self.denoiser.condition, self.z_0)
            self.denoiser = replace(self.denoiser, condition=condition)
        z_0 = self.denoiser(z_t, t, mask)
        self.z_0 = where(mask, z_0, self.denoiser.condition.z_lr)
        return z_0
