"""Networks that take degradation away before anything is generated: stage one.

BSRNet is the RRDB network that lives here already; every other architecture is spandrel's, so any
file of OpenModelDB works. Images are (1, 3, H, W) in [0, 1]; results are not clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.devices.memory import free_bytes
from yoda_cli.errors import DeviceError
from yoda_cli.images.resize import imresize
from yoda_cli.models.image_networks import image_network
from yoda_cli.models.nets.filling import build_filled
from yoda_cli.models.nets.rrdb import RRDBNet
from yoda_cli.tiling.windows import make_tiles, rounded_up
from yoda_cli.weights.tensors import read_tensors

CORE, HALO = 512, 64  # input pixels of a tile, and around it
UNCLIPPED = ("SwinIR", "SCUNet")
BYTES = 24  # per pixel that is made: floats, twice while they are resized
ALIGN = 64  # windows of attention over unshuffled pixels stay where they are in the whole picture


@dataclass(frozen=True, eq=False)
class Restorer:
    """``run`` maps (1, 3, H, W) to ``scale`` times its size; sides of any length."""

    name: str
    run: Callable[[Tensor], Tensor]
    scale: int
    device: torch.device

    @torch.no_grad()
    def restore(self, lr: Tensor, height: int, width: int) -> Tensor:
        """``lr`` restored, of (height, width).

        A network that keeps the size is given the enlarged picture, one that enlarges the picture
        as it is, or made smaller first where the result is. What remains is a bicubic resize.
        Raises DeviceError where memory will not hold what the network makes.
        """
        image = lr
        if self.scale == 1 or height * width < lr.shape[-2] * lr.shape[-1]:
            image = imresize(lr, (height, width)).clamp(0, 1)
        self.check_memory(image.shape[-2] * image.shape[-1])
        image = self.tiled(image)
        if image.shape[-2:] != (height, width):
            image = imresize(image, (height, width))
        return image

    def check_memory(self, pixels: int) -> None:
        """Refuse a picture of ``pixels`` that is too large once it is restored."""
        needed, free = BYTES * pixels * self.scale**2, free_bytes(torch.device("cpu"))
        if needed > free:
            raise DeviceError(
                f"stage one makes {pixels * self.scale**2:,} pixels, which need about "
                f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
            )

    def tiled(self, image: Tensor) -> Tensor:
        """``run`` over tiles that overlap, borders repeated up to whole windows."""
        height, width = image.shape[-2:]
        tall, wide = rounded_up(height, ALIGN), rounded_up(width, ALIGN)
        # An edge may be longer than the picture: reflect cannot, replicate can.
        padded = F.pad(image, (0, wide - width, 0, tall - height), mode="replicate")
        large = max(tall, wide) > CORE + 2 * HALO
        tiles = make_tiles(tall, wide, core=CORE if large else 0, halo=HALO, align=ALIGN)
        out = image.new_empty(1, 3, tall * self.scale, wide * self.scale)
        for tile in tiles:
            result = self.run(tile.window.cut(padded).to(self.device)).float().cpu()
            tile.multiplied(self.scale).paste(out, result)
        return out[..., : height * self.scale, : width * self.scale]


def load_restorer(path: Path, device: torch.device) -> Restorer:
    """The network in a file, whatever its architecture."""
    return restorer_of(read_tensors(path), str(path), device)


def restorer_of(state: Mapping[str, Tensor], name: str, device: torch.device) -> Restorer:
    """The network that tensors make up."""
    if "RRDB_trunk.0.RDB1.conv1.weight" in state:
        return _rrdb(state, name, device)
    found = image_network(state, name).to(device)
    # The wrapper clips what the network puts out; those that DiffBIR was trained with are not.
    run = found.model if found.architecture.id in UNCLIPPED else found
    return Restorer(name, run, int(found.scale), device)


def _rrdb(state: Mapping[str, Tensor], name: str, device: torch.device) -> Restorer:
    growth, features = state["RRDB_trunk.0.RDB1.conv1.weight"].shape[:2]
    blocks = len({key.split(".")[1] for key in state if key.startswith("RRDB_trunk.")})
    scale = 8 if "upconv3.weight" in state else 4

    def make() -> RRDBNet:
        return RRDBNet(num_feat=features, num_block=blocks, growth=growth, scale=scale)

    net = build_filled(make, lambda key: key, state, name, device)

    def run(image: Tensor) -> Tensor:
        return net.enlarge(net.features(image * 2 - 1)[-1])

    return Restorer(name, run, scale, device)
