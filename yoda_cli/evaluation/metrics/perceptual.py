"""Distances by networks: LPIPS and DISTS, over backbones whose weights the caller brings.

The small learned parts (LPIPS's linear heads, DISTS's weights of the stages) are packaged; nothing
is downloaded here. Pictures are (1, 3, H, W) in [0, 1].
Sources: Zhang et al. 2018 (LPIPS 0.1); Ding et al. 2020 (DISTS).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from yoda_cli.errors import WeightsError
from yoda_cli.weights.tensors import read_tensors

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

#: Layers of torchvision's ``features`` after which LPIPS looks.
TAPS = {
    "alex": (1, 4, 7, 9, 11),
    "vgg": (3, 8, 15, 22, 29),
    "squeeze": (1, 4, 7, 9, 10, 11, 12),
}

BUILDERS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
MIN_SIDE = 32  # smaller pictures vanish in the backbones' pooling
TINY = 1e-10

Distance = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Lpips:
    """LPIPS 0.1 with one backbone; 0 is the same picture."""

    layers: Sequence[nn.Module]
    taps: tuple[int, ...]
    heads: Sequence[Tensor]

    @torch.no_grad()
    def __call__(self, sr: Tensor, hr: Tensor) -> float:
        total = 0.0
        for x, y, head in zip(self.features(sr), self.features(hr), self.heads, strict=True):
            total += float(((x - y).square() * head).sum(1).mean())
        return total

    def features(self, image: Tensor) -> list[Tensor]:
        """Activations at the taps, each pixel's vector of length 1."""
        x = scaled(2 * image.float() - 1, SHIFT, SCALE)
        found = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.taps:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + TINY))
        return found


@dataclass(frozen=True)
class Dists:
    """DISTS at the pictures' own size; 0 is the same structure and texture."""

    layers: Sequence[nn.Module]
    alpha: Tensor
    beta: Tensor

    @torch.no_grad()
    def __call__(self, sr: Tensor, hr: Tensor) -> float:
        weight = self.alpha.sum() + self.beta.sum()
        xs, ys = self.stages(sr), self.stages(hr)
        widths = [x.shape[1] for x in xs]
        likeness = torch.zeros(())
        parts = zip(
            xs,
            ys,
            torch.split(self.alpha, widths, 1),
            torch.split(self.beta, widths, 1),
            strict=True,
        )
        for x, y, alpha, beta in parts:
            mx, my = (v.mean((2, 3), keepdim=True) for v in (x, y))
            luminance = (2 * mx * my + 1e-6) / (mx**2 + my**2 + 1e-6)
            vx, vy = ((v - m).square().mean((2, 3), keepdim=True) for v, m in ((x, mx), (y, my)))
            cov = (x * y).mean((2, 3), keepdim=True) - mx * my
            structure = (2 * cov + 1e-6) / (vx + vy + 1e-6)
            likeness = likeness + (alpha * luminance + beta * structure).sum() / weight
        return 1 - float(likeness)

    def stages(self, image: Tensor) -> list[Tensor]:
        """The picture itself and VGG-16's five stages, max pooling replaced by L2 pooling."""
        x = image.float()
        found, x = [x], scaled(x, MEAN, STD)
        for index, layer in enumerate(self.layers):
            x = l2_pool(x) if isinstance(layer, nn.MaxPool2d) else layer(x)
            if index in TAPS["vgg"]:
                found.append(x)
        return found


def scaled(x: Tensor, shift: Sequence[float], scale: Sequence[float]) -> Tensor:
    """(x − shift) / scale, per channel."""
    return (x - torch.tensor(shift).view(1, 3, 1, 1)) / torch.tensor(scale).view(1, 3, 1, 1)


def l2_pool(x: Tensor) -> Tensor:
    """Root of the Hann-weighted mean square, stride 2."""
    hann = torch.tensor([0.5, 1.0, 0.5])
    kernel = (hann[:, None] * hann) / hann.sum() ** 2
    weight = kernel.expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), weight, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def backbone(net: str, state: Mapping[str, Tensor]) -> list[nn.Module]:
    """The layers of torchvision's ``features``, filled."""
    import torchvision

    with torch.device("meta"):
        features = getattr(torchvision.models, BUILDERS[net])(weights=None).features
    own = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    try:
        features.load_state_dict(own, assign=True)
    except RuntimeError as error:
        what = " ".join(str(error).split())[:120]
        raise WeightsError(f"these are no weights of {BUILDERS[net]}: {what}") from error
    for module in features.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return list(features.eval())


@cache
def learned_parts() -> dict[str, Tensor]:
    """LPIPS's linear heads (``lpips.NET.STAGE``) and DISTS's weights of the stages' channels."""
    return load((files("yoda_cli.evaluation.metrics") / "heads.safetensors").read_bytes())


def load_lpips(net: str, weights: Path) -> Lpips:
    """LPIPS over the backbone in ``weights``, a file of torchvision's."""
    ordered = [
        learned_parts()[f"lpips.{net}.{stage}"].view(1, -1, 1, 1) for stage in range(len(TAPS[net]))
    ]
    return Lpips(backbone(net, read_tensors(weights, prefix="features.")), TAPS[net], ordered)


def load_dists(weights: Path) -> Dists:
    """DISTS over VGG-16's weights, a file of torchvision's."""
    layers = backbone("vgg", read_tensors(weights, prefix="features."))
    alpha, beta = (learned_parts()[f"dists.{name}"].view(1, -1, 1, 1) for name in ("alpha", "beta"))
    return Dists(layers, alpha, beta)
