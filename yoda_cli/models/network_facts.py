"""What is measured of a network before its first picture: how far it sees, what it holds, how it
bears half precision.

A strip of a photograph is enlarged whole and cut in two: where the two differ, the cut was seen.
Kept in the cache folder by the file's SHA-256; a few seconds on a CPU for a large network.
"""

from __future__ import annotations

import contextlib
import json
import math
import weakref
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from yoda_cli.devices.device import autocast
from yoda_cli.errors import OutputError, WeightsError
from yoda_cli.files import cache_folder, digest_of, make_folder, write_atomically
from yoda_cli.files.notes import are_numbers, read_notes
from yoda_cli.models.image_networks import Network
from yoda_cli.tiling.windows import rounded_up

RECORD = "networks-2.json"
FARTHEST = 48  # input pixels: no halo is wider
TALL = 24  # input pixels: the height of the strip
SEEN = 1 / 1530  # a sixth of a grey level, in root mean square: less is no seam
SPARE = 1.5  # of memory, for what libraries hold while they compute
LARGEST_DECIBELS = 200.0  # for results that do not differ at all


@dataclass(frozen=True)
class Facts:
    """Of one network. ``halo`` and ``stride`` are input pixels: how far a cut is seen, and what
    tiles must be aligned to. ``pixel_bytes`` is what a call holds per output pixel, ``decibels``
    the PSNR of half precision against fp32."""

    halo: int
    stride: int
    pixel_bytes: int
    decibels: float


def facts_of(network: Network, path: Path, device: torch.device, precision: torch.dtype) -> Facts:
    """Measured now, or kept from an earlier run with the same file."""
    try:
        record = cache_folder() / RECORD
    except WeightsError:  # no home, no cache: measured every time
        return measure(network, device, precision)
    key = f"{digest_of(path)} {device.type} {precision} {torch.__version__}"
    with contextlib.suppress(KeyError, TypeError):
        facts = Facts(**read_notes(record)[key])
        if are_numbers(asdict(facts).values()):
            return facts
    facts = measure(network, device, precision)
    text = json.dumps({**read_notes(record), key: asdict(facts)})
    with contextlib.suppress(OutputError):  # measured again next time
        make_folder(record.parent)
        write_atomically(record, text.encode())
    return facts


@torch.inference_mode()
def measure(network: Network, device: torch.device, precision: torch.dtype) -> Facts:
    """Three or four calls on a strip and its halves."""
    needs = network.size_requirements
    stride = int(needs.multiple_of)
    side = rounded_up(max(FARTHEST, int(needs.minimum)), stride)
    tall = rounded_up(max(TALL, int(needs.minimum)), stride)
    strip = photograph(tall, 2 * side).to(device)
    counted = PeakBytes()
    with counted:
        whole = network(strip).float()
    left = network(strip[..., :side].contiguous()).float()
    right = network(strip[..., side:].contiguous()).float()
    scale = int(network.scale)
    halo = FARTHEST
    if network.tiling.name == "SUPPORTED" and not needs.square:
        edge = side * scale
        mirrored = (whole[..., edge:].flip(-1), right.flip(-1))
        halo = max(reach(whole[..., :edge], left, scale), reach(*mirrored, scale))
    decibels = LARGEST_DECIBELS
    if precision != torch.float32:
        with autocast(device, precision)():
            decibels = psnr(network(strip).float(), whole)
    pixels = whole.shape[-2] * whole.shape[-1]
    pixel_bytes = math.ceil(SPARE * counted.peak / pixels)
    return Facts(rounded_up(halo, stride), stride, pixel_bytes, decibels)


def reach(whole: Tensor, cut: Tensor, scale: int) -> int:
    """How far from the right edge, in input pixels, two pictures (1, 3, H, W) differ visibly."""
    columns = (whole - cut).square().mean((0, 1, 2)).view(-1, scale).mean(1).sqrt()
    seen = columns.flip(0) > SEEN  # by distance from the cut
    farthest = int(seen.nonzero().max()) + 1 if bool(seen.any()) else 0
    return min(max(farthest, 1), FARTHEST)


def psnr(a: Tensor, b: Tensor) -> float:
    """In decibels of a peak of 1; 0 where a value is not finite."""
    error = float((a - b).square().mean())
    if not math.isfinite(error):
        return 0.0
    return min(-10 * math.log10(max(error, 1e-30)), LARGEST_DECIBELS)


def photograph(height: int, width: int) -> Tensor:
    """(1, 3, height, width) in [0, 1]: one of the packaged pictures, repeated."""
    with (files("yoda_cli") / "samples" / "city.png").open("rb") as file:
        pixels = np.asarray(Image.open(file).convert("RGB"))
    times = (-(-height // pixels.shape[0]), -(-width // pixels.shape[1]), 1)
    tiled = np.tile(pixels, times)[:height, :width]
    return torch.from_numpy(tiled.copy()).permute(2, 0, 1)[None].float() / 255


class PeakBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors made inside hold at one time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        self.peak = max(self.peak, self._now)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self._alive or size == 0:
            return
        self._alive.add(address)
        self._now += size
        weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self._alive.discard(address)
        self._now -= size
