"""The second stage's loss: a score that is best when samples vary as the truth is uncertain.

The energy score (Gneiting & Raftery 2007, eq. 21) of two samples y, y' for one truth x:
(‖y - x‖ + ‖y' - x‖)/2 - ‖y - y'‖/2. A squared or absolute error alone is least for one picture,
the mean or the median, and detail is lost; here a detail that is in doubt is worth showing, once
in this place and once in that. What both samples share gains nothing: no grid or halo pays.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIDES = (2, 4, 8)  # of the square patches whose norms are compared, one of them at each call
EPSILON = 1e-3  # below it a distance is smooth


def energy_score(
    first: Tensor, second: Tensor, truth: Tensor, mask: Tensor, spread: float,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """The mean score of patches inside ``mask``, as a root mean square in the tensors' own unit.

    Samples and truth (B, C, H, W), sides above 16; ``mask`` (B, 1, H, W). ``spread`` in [0, 1]
    weighs how far the samples are apart: with 1 the score is proper, least for true samples of what
    the truth may be; with less they vary less, and lie nearer to the truth. Patches tile the
    picture from a corner drawn at random.
    """
    side = SIDES[int(torch.randint(len(SIDES), (1,), generator=generator))]
    top, left = torch.randint(side, (2,), generator=generator).tolist()

    def distance(a: Tensor, b: Tensor) -> Tensor:
        difference = ((a - b) * mask)[..., top:, left:]
        height, width = (n // side * side for n in difference.shape[-2:])
        patches = F.pixel_unshuffle(difference[..., :height, :width], side)
        return (patches.square().mean(1) + EPSILON**2).sqrt().mean() - EPSILON

    error = (distance(first, truth) + distance(second, truth)) / 2
    area = mask.float().mean().clamp(min=1e-6)
    return (error - spread / 2 * distance(first, second)) / area
