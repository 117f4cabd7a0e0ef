"""yoda: masked diffusion super-resolution. Importing this package imports nothing heavy.

import yoda_cli
result = yoda_cli.upscale("photo.png")               # result.image (1, 3, H, W) in [0, 1]
attention = yoda_cli.attention_map("photo.png")      # (1, 1, h, w) in [0, 1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yoda_cli.config import UpscaleOptions

if TYPE_CHECKING:
    from torch import Tensor

    from yoda_cli.upscaling.api import Input
    from yoda_cli.upscaling.result import Result

__all__ = ["UpscaleOptions", "__version__", "attention_map", "upscale"]


def upscale(image: Input, options: UpscaleOptions | None = None) -> Result:
    """Enlarge a picture: a path, a file's bytes, a Pillow image, (H, W, 3) uint8, or a tensor
    (1, 3, H, W) in [0, 1]. ``Result.image`` is (1, 3, H', W') in [0, 1], on the CPU."""
    from yoda_cli.upscaling import api

    return api.upscale(image, options)


def attention_map(image: Input, options: UpscaleOptions | None = None) -> Tensor:
    """Where diffusion would work first: (1, 1, H, W) in [0, 1] on the picture's own grid."""
    from yoda_cli.upscaling import api

    return api.attention_map(image, options)
