"""Bicubic resizing in MATLAB's convention, the benchmark's. Knows no files and no networks.

Keys kernel with a = -0.5, pixel centres at half-integers, antialiased (the kernel widened) when
shrinking, edges mirrored with the border pixel repeated, weights normalised.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np

from yoda_cli.arrays import (
    Array,
    add_product,
    as_array,
    is_plain,
    is_repeated,
    library_of,
    like,
    spread,
    taken,
)

if TYPE_CHECKING:
    from torch import Tensor


def crop_to_multiple(hr: Tensor, multiple: int) -> Tensor:
    """The top-left part whose sides divide by ``multiple``."""
    height, width = hr.shape[-2:]
    return hr[..., : height - height % multiple, : width - width % multiple]


def as_floats(pixels: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; anything else as it is.

    Very large pictures are held as bytes, a quarter, and turned where they are needed.
    """
    if is_plain(pixels):
        values = as_array(pixels)
        if values.dtype != np.uint8:
            return pixels
        return cast("Tensor", np.divide(values, np.float32(255), order="C"))
    return pixels if pixels.is_floating_point() else pixels.float().div_(255)


REACH = 2  # source pixels on either side that an enlarged pixel sees


def _cubic(x: Array) -> Array:
    x = abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _taps(length: int, out_length: int, scale: float) -> tuple[Array, Array]:
    """Source indices and weights, both (out_length, taps); weights float64."""
    widen = min(scale, 1.0)
    support = 4.0 / widen
    centre = (np.arange(out_length) + 0.5) / scale - 0.5
    first = np.floor(centre - support / 2).astype(np.int64)
    index = first[:, None] + np.arange(math.ceil(support) + 2)
    weight = _cubic((centre[:, None] - index) * widen)
    weight = weight / weight.sum(1, keepdims=True)
    keep = (weight != 0).any(0)
    index, weight = index[:, keep], weight[:, keep]
    index = index % (2 * length)  # mirror: …1 0 | 0 1 … n-1 | n-1 …
    return np.where(index >= length, 2 * length - 1 - index, index), weight


def _turned(x: Tensor) -> Tensor:
    """Rows for columns, in memory too."""
    turned = library_of(x).swapaxes(x, -1, -2)
    return cast("Tensor", np.ascontiguousarray(turned)) if is_plain(x) else turned.contiguous()


def _along(x: Tensor, dim: int, out_length: int, scale: float) -> Tensor:
    if "uint8" in str(x.dtype):
        values = cast("Tensor", as_array(x).astype(np.float64))
        return like(x, as_array(_along(values, dim, out_length, scale)).round().clip(0, 255))
    is_whole = scale > 1 and scale == int(scale) and out_length == x.shape[dim] * int(scale)
    if is_whole and not is_plain(x):
        return _enlarged(x, dim, int(scale))
    if dim % x.ndim == x.ndim - 1:  # whole rows are copied ten times as fast as single pixels
        return _turned(_along(_turned(x), dim - 1, out_length, scale))
    index, weights = _taps(x.shape[dim], out_length, scale)
    shape = [1] * x.ndim
    shape[dim] = out_length
    weight = like(x, weights)
    out = taken(x, dim, index[:, 0]) * weight[:, 0].reshape(shape)
    for tap in range(1, index.shape[1]):
        add_product(out, taken(x, dim, index[:, tap]), weight[:, tap].reshape(shape))
    return out


def _enlarged(x: Tensor, dim: int, factor: int) -> Tensor:
    """The same by a whole factor, without gathers: in a tenth of the time, to the same fp32 bits.

    All pixels of one phase, every ``factor``-th, have the same weights: sums of shifted copies.
    """
    import torch

    length = x.shape[dim]
    if length < REACH:  # a single pixel
        before = after = x.expand(*(REACH if i == dim % x.ndim else -1 for i in range(x.ndim)))
    else:
        before = x.narrow(dim, 0, REACH).flip(dim)
        after = x.narrow(dim, length - REACH, REACH).flip(dim)
    wide = torch.cat([before, x, after], dim)
    phases = []
    for (first, w), *rest in phase_taps(factor):
        phase = wide.narrow(dim, first, length) * w
        for start, w in rest:
            phase.add_(wide.narrow(dim, start, length), alpha=w)
        phases.append(phase)
    return torch.stack(phases, dim + 1).flatten(dim, dim + 1)


@lru_cache(maxsize=16)
def phase_taps(factor: int) -> list[list[tuple[int, float]]]:
    """For each phase: which pixels of a mirrored axis it sums from its first on, and by which
    weights."""
    whole = 2 * REACH + 1  # what the pixels of the middle one see is not mirrored
    index, weight = (table.tolist() for table in _taps(whole, whole * factor, factor))
    rows = range(REACH * factor, (REACH + 1) * factor)
    return [[(i, w) for i, w in zip(index[r], weight[r], strict=True) if w] for r in rows]


def imresize(
    x: Tensor, size: tuple[int, int] | None = None, *, scale: float | None = None
) -> Tensor:
    """Resize the last two dimensions of ``x``, to ``size`` (H, W) or by ``scale``.

    With ``scale`` the output is ⌈n·scale⌉ long and that factor drives the sampling grid; with
    ``size`` the factor is out/in per axis. A floating tensor keeps its precision and is not
    clipped; uint8 is rounded and clipped after each axis, as MATLAB does.
    """
    height, width = x.shape[-2:]
    if size is not None:
        factors = (size[0] / height, size[1] / width)
    elif scale is not None:
        size = (math.ceil(height * scale), math.ceil(width * scale))
        factors = (scale, scale)
    else:
        raise ValueError("give a size or a scale")
    # MATLAB starts with the axis that shrinks most.
    for dim in sorted((-2, -1), key=lambda d: factors[d + 2]):
        if x.shape[dim] != size[dim + 2] or factors[dim + 2] != 1:
            x = _along(x, x.ndim + dim, size[dim + 2], factors[dim + 2])
    return x


def shrink(pixels: Tensor, size: tuple[int, int], *, together: int = 1 << 24) -> Tensor:
    """``imresize`` to no larger a ``size``, in [0, 1]; bytes become floats a few rows at a time,
    some ``together`` values at once. Rows are made fewer first: they lie whole in memory."""
    if pixels.ndim == 4 and pixels.shape[1] > 1 and is_repeated(pixels, 1):  # grey, as colour
        made = shrink(pixels[:, :1], size, together=together)
        return spread(made, made.shape[0], pixels.shape[1], *size)
    height, width = pixels.shape[-2:]
    if together // width >= height:
        return imresize(as_floats(pixels), size).clip(0, 1)
    index, weights = _taps(height, size[0], size[0] / height)
    seen = index.shape[1]  # rows that a row of the result sees
    rows = max(1, min(seen, together // width - seen) * size[0] // height)
    parts = []
    for top in range(0, size[0], rows):
        index_here, weights_here = index[top : top + rows], weights[top : top + rows]
        first, last = index_here.min(), index_here.max() + 1
        share = np.zeros((len(index_here), last - first))
        np.add.at(share, (np.arange(len(index_here))[:, None], index_here - first), weights_here)
        strip = as_floats(pixels[..., first:last, :])
        share_here = like(strip, share)
        planes = [share_here @ plane for plane in strip.reshape(-1, *strip.shape[-2:])]
        stacked = library_of(strip).stack(planes)  # each alone: the same bits for any number
        part = stacked.reshape(*strip.shape[:-2], len(share), width)
        parts.append(_along(part, part.ndim - 1, size[1], size[1] / width))
    return cast("Tensor", library_of(pixels).concatenate(parts, axis=-2).clip(0, 1))
