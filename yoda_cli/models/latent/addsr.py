"""AddSR (arXiv:2404.01717): Stable Diffusion 2 in one to four steps, steered by the picture itself.

Between the steps the picture made so far is decoded and mixed with the enlarged LR picture. The
mix is what the ControlNet and DAPE see at the next step: prediction-based self-refinement.
Pictures are (1, 3, H, W) in [0, 1] unless they are said to be in [-1, 1].
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: what DAPE was trained on
REFINEMENT = 0.4  # what the published code runs with, though its command line offers 0.5


def refined_picture(decoded: Tensor, lr: Tensor, weight: float = REFINEMENT) -> Tensor:
    """What steers the next step: ``decoded`` in [-1, 1], clipped, mixed with enlarged ``lr``."""
    made = decoded.clamp(-1, 1) / 2 + 0.5
    return weight * made + (1 - weight) * lr


def dape_input(picture: Tensor, side: int) -> Tensor:
    """``picture`` squeezed to a square, normalised; cubic overshoots are kept, as published."""
    square = F.interpolate(picture, (side, side), mode="bicubic")
    mean, std = (picture.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (square - mean) / std
