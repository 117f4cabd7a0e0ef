"""DINO's ResNet-50 as attention. It has no heads: head k is its k-th largest pooled feature.

That is label-free and deterministic; the map of a feature is its AGF relevance, or, much cheaper,
its own activations in the last layer (Grad-CAM with the pooled feature as the target).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.attention.agf import State, Trace, forward, relevance_maps
from yoda_cli.attention.heads import HEADS, imagenet_normalised, min_max
from yoda_cli.errors import WeightsError
from yoda_cli.tiling.overlap import blend, sliding_windows
from yoda_cli.tiling.windows import Window
from yoda_cli.weights.tensors import read_tensors

STRIDE = 32  # of the last layer

# The relevance pass keeps many tensors of six heads, 256 channels and a quarter of the resolution.
# Larger pictures than this are seen in windows, at native scale.
MAX_PIXELS = 512 * 384
WINDOW, STEP = 384, 320  # pixels: a side, and from window to window


def load(path: Path, *, device: torch.device, cheap: bool) -> Callable[[Tensor], Tensor]:
    """The head maps of the published file: LR image → (1, 6, h, w), each in [0, 1]."""
    state = {key: value.float().to(device) for key, value in read_tensors(path).items()}
    for key in ("conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer4.2.bn3.weight"):
        if key not in state:
            raise WeightsError(f"{path} is no ResNet-50: it lacks {key}")
    return lambda lr: head_maps(state, lr.to(device), cheap=cheap).cpu()


def is_windowed(height: int, width: int, *, cheap: bool = False) -> bool:
    """Whether a picture is too large for one relevance pass; the cheap one takes any."""
    return not cheap and height * width > MAX_PIXELS


@torch.no_grad()
def head_maps(state: State, lr: Tensor, *, cheap: bool) -> Tensor:
    """(1, 6, h, w) of an LR image (1, 3, h, w) in [0, 1]; each head min-max normalised.

    Above ``MAX_PIXELS`` the features are those of the picture made that small, and their maps
    come from overlapping windows at native scale, blended before they are normalised.
    """
    height, width = lr.shape[-2:]
    if not is_windowed(height, width, cheap=cheap):
        x = padded(imagenet_normalised(lr))
        trace = forward(state, x)
        targets = strongest(trace)
        maps = activations(trace, targets) if cheap else positive(state, trace, targets)
        return min_max(F.interpolate(maps, x.shape[-2:], mode="bilinear")[..., :height, :width])
    factor = WINDOW / max(height, width)
    size = [max(1, round(n * factor)) for n in (height, width)]
    small = F.interpolate(lr, size, mode="bilinear", antialias=True)
    targets = strongest(forward(state, padded(imagenet_normalised(small))))

    def see(window: Window) -> Tensor:
        x = padded(imagenet_normalised(window.cut(lr)))
        found = positive(state, forward(state, x), targets)
        return found[..., : window.height, : window.width]

    windows = sliding_windows(height, width, WINDOW, STEP)
    return min_max(blend(see, windows, lr.new_zeros(1, HEADS, height, width)))


def strongest(trace: Trace) -> Tensor:
    """The six largest pooled features, ties by index."""
    return trace.features[0].sort(descending=True, stable=True).indices[:HEADS]


def positive(state: State, trace: Trace, targets: Tensor) -> Tensor:
    """The positive relevance of each target, (1, 6, H, W)."""
    return F.relu(relevance_maps(state, trace, targets)).transpose(0, 1)


def activations(trace: Trace, targets: Tensor) -> Tensor:
    """The last layer's channels that the targets are the means of, (1, 6, H/32, W/32)."""
    return trace.last[:, targets]


def padded(x: Tensor) -> Tensor:
    """The border repeated to the right and below up to multiples of 32."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
