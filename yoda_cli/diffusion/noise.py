"""Gaussian noise as a pure function of (seed, step, window). Knows no network and no picture.

The plane of all pixels is cut into fixed blocks of 64×64; each block of each step has a counter
range of its own in one Philox stream (Salmon et al., 2011). A window's values therefore never
depend on which windows were drawn before, on tiles, order, batch, device or number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from yoda_cli.arrays import Array, is_plain, threads
from yoda_cli.diffusion.samplers import Sampler
from yoda_cli.diffusion.yoda import Draw

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BLOCK = 64
_FAR = 1 << 63  # block indices may be negative (padding): shift them into uint64


@dataclass(frozen=True)
class NoiseField:
    """Standard normal noise on an unbounded grid.

    ``seed`` is any non-negative integer below 2⁶⁴; ``channels`` the C of the drawn (1, C, H, W).
    """

    seed: int
    channels: int = 3

    def draw(self, step: int, top: int, left: int, height: int, width: int) -> Tensor:
        """The (1, C, height, width) float32 window at (top, left) of the noise of ``step``."""
        import torch

        return torch.from_numpy(self.array(step, top, left, height, width))

    def array(self, step: int, top: int, left: int, height: int, width: int) -> Array:
        """The same in NumPy."""
        out = np.empty((self.channels, height, width), dtype=np.float32)

        def fill(row: int) -> None:
            for col in range(left // BLOCK, -(-(left + width) // BLOCK)):
                block = self._block(step, row, col)
                y0, x0 = max(row * BLOCK, top), max(col * BLOCK, left)
                y1, x1 = min((row + 1) * BLOCK, top + height), min((col + 1) * BLOCK, left + width)
                out[:, y0 - top : y1 - top, x0 - left : x1 - left] = block[
                    :, y0 - row * BLOCK : y1 - row * BLOCK, x0 - col * BLOCK : x1 - col * BLOCK
                ]

        rows = range(top // BLOCK, -(-(top + height) // BLOCK))
        with ThreadPoolExecutor(threads()) as pool:  # numpy lets others run
            list(pool.map(fill, rows))
        return out[None]

    def _block(self, step: int, row: int, col: int) -> Array:
        counter = np.array([0, col + _FAR, row + _FAR, step], dtype=np.uint64)
        key = np.array([self.seed, 0], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(counter=counter, key=key))
        return generator.standard_normal((self.channels, BLOCK, BLOCK), dtype=np.float32)


def make_draw(
    z_lr: Tensor, seed: int, sampler: Sampler, top: int = 0, left: int = 0, *,
    upload: Callable[[Tensor, torch.device], Tensor] = lambda noise, device: noise.to(device),
) -> Draw:  # fmt: skip
    """Noise for the canvas of ``z_lr``, whose corner lies at (top, left) of the picture.

    It is drawn on the CPU; ``upload`` takes it to the device. A deterministic sampler's is drawn
    once: an unrefined pixel then moves along the same trajectory as a refined one whose ẑ_0 is
    z_lr.
    """
    channels, height, width = z_lr.shape[1:]
    field = NoiseField(seed, channels)

    def draw(step: int) -> Tensor:
        if is_plain(z_lr):
            return cast("Tensor", field.array(step, top, left, height, width))
        return upload(field.draw(step, top, left, height, width), z_lr.device)

    if sampler.is_stochastic:
        return draw
    once = draw(0)
    return lambda step: once
