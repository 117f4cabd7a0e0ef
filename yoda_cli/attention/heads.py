"""Several heads' maps → one: the maximum (the paper's best), the mean, or one head alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yoda_cli.attention.classic import CONSTANT
from yoda_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

AVG, MAX = "avg", "max"

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pictures DINO was trained on

HEADS = 6  # of every DINO backbone that is offered


def check_heads(which: str) -> None:
    """Refuse what no source could mean: anything but ``max``, ``avg`` and a head's number."""
    if which not in (AVG, MAX) and not (which.isdecimal() and int(which) < HEADS):
        raise UsageError(f"heads {which!r} is not allowed; give 0 … {HEADS - 1}, avg or max")


def min_max(maps: Tensor) -> Tensor:
    """Each (h, w) plane of (…, h, w) to [0, 1]; a constant one becomes ``CONSTANT``."""
    import torch

    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    span = high - low
    scaled = (maps - low) / torch.where(span > 0, span, 1)
    return torch.where(span > 0, scaled, CONSTANT).clamp(0, 1)


def imagenet_normalised(lr: Tensor) -> Tensor:
    """[0, 1] RGB → what the network was trained on."""
    import torch

    mean, std = (torch.tensor(v).view(1, 3, 1, 1).to(lr) for v in (MEAN, STD))
    return (lr - mean) / std


def aggregate(maps: Tensor, which: str) -> Tensor:
    """(1, heads, h, w), each in [0, 1] → A (1, 1, h, w) in [0, 1], min-max normalised."""
    check_heads(which)
    if which == MAX:
        return min_max(maps.amax(1, keepdim=True))
    if which == AVG:
        return min_max(maps.mean(1, keepdim=True))
    return min_max(maps[:, int(which) : int(which) + 1])
