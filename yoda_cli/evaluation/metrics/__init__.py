"""Image quality: pure functions, and networks' opinions where their weights are given."""

from yoda_cli.evaluation.metrics.basic import (
    colour_error,
    crop_border,
    detail_ratio,
    lr_consistency,
    psnr,
    quantise,
    seam,
    ssim,
    texture_distance,
)
from yoda_cli.evaluation.metrics.patterns import grid, weave
from yoda_cli.images.color import luma

__all__ = [
    "colour_error",
    "crop_border",
    "detail_ratio",
    "grid",
    "lr_consistency",
    "luma",
    "psnr",
    "quantise",
    "seam",
    "ssim",
    "texture_distance",
    "weave",
]
