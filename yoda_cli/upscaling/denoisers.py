"""The network run over a plan's tiles, in groups, going on with less where memory runs out.

Knows the plan and the model; the loop is ``yoda.masked_sample``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from yoda_cli.config import MIN_TILE
from yoda_cli.devices.out_of_memory import Counter, run_with_less_memory
from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.models.base import Condition, crop_condition, stack_conditions
from yoda_cli.models.model import Model
from yoda_cli.tiling.overlap import gaussian_weights
from yoda_cli.tiling.plan import Plan
from yoda_cli.tiling.windows import Tile, Window, halves

IN_HISTORY = max(sampler.history for sampler in SAMPLERS.values())
GROUP_PIXELS = 1 << 20  # windows that go through a GPU together have no more pixels than this


@dataclass(frozen=True)
class Part:
    """A window of a canvas, as one network call is given it."""

    window: Window
    condition: Condition
    z_t: Tensor
    mask: Tensor


def call_network(model: Model, parts: Sequence[Part], t: int) -> Sequence[Tensor]:
    """ẑ_0 (1, C, h, w) of each of ``parts``, whose windows have one shape, by one network call."""
    with model.context():
        z_0 = model.backbone.predict(
            torch.cat([part.window.cut(part.z_t) for part in parts]),
            t,
            stack_conditions([crop_condition(part.condition, part.window) for part in parts]),
            torch.cat([part.window.cut(part.mask) for part in parts]),
        )
    return torch.split(z_0, 1)


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
        tiles = self.plan.tiles(self.plan.timesteps.index(t))
        (out,) = denoise_together([Canvas(self, z_t, mask, tiles)], t)
        return out

    def canvas(self, like: Tensor) -> Tensor:
        """Zeros. Fresh memory is slow to come by: those of earlier calls are taken in turn, each
        once no sampler's history can hold it any longer."""
        used = len(self.canvases) == IN_HISTORY + 1
        out = self.canvases.pop(0).zero_() if used else torch.zeros_like(like)
        self.canvases.append(out)
        return out


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
    model, counter, align = first.model, first.counter, first.model.backbone.geometry.align
    made = [canvas.denoiser.canvas(canvas.z_t) for canvas in canvases]

    def work(items: Sequence[tuple[int, Tile]]) -> None:
        parts = [
            Part(tile.window, canvases[i].denoiser.condition, canvases[i].z_t, canvases[i].mask)
            for i, tile in items
        ]
        for (i, tile), result in zip(items, call_network(model, parts, t), strict=True):
            tile.paste(made[i], result)
        counter.count(len(items))

    def smaller(item: tuple[int, Tile]) -> Sequence[tuple[int, Tile]]:
        i, tile = item
        if max(tile.core.height, tile.core.width) <= max(MIN_TILE, align):
            return ()
        height, width = canvases[i].z_t.shape[-2:]
        return [(i, half) for half in halves(tile, first.halo, align, height, width)]

    def refusal(item: tuple[int, Tile]) -> str:
        core = item[1].core
        return (
            f"out of memory on {model.device} even with a tile of {core.width}×{core.height} pixels"
        )

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
        total = torch.zeros_like(z_t)
        weights = torch.zeros_like(z_t[:, :1])

        def work(windows: Sequence[Window]) -> None:
            parts = [Part(window, self.condition, z_t, mask) for window in windows]
            results = call_network(self.model, parts, t)
            for window, z_0 in zip(windows, results, strict=True):
                weight = gaussian_weights(window.height, window.width).to(z_0)
                window.cut(total).add_(z_0 * weight)
                window.cut(weights).add_(weight)
            self.counter.count(len(windows))

        tiles = self.plan.tiles(self.plan.timesteps.index(t))
        for start in range(0, len(tiles), self.group):
            windows = [tile.window for tile in tiles[start : start + self.group]]
            run_with_less_memory(windows, work, lambda _: (), self.counter, self.refusal)
        return torch.where(weights > 0, total / weights, 0.0)

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
        self.z_0 = torch.where(mask, z_0, self.denoiser.condition.z_lr)
        return z_0
