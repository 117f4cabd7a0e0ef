"""Image quality: pure functions, and networks' opinions where their weights are given."""

from yoda_cli.metrics.basic import (
    colour_error,
    crop_border,
    detail_ratio,
    lr_consistency,
    luma,
    psnr,
    quantise,
    seam,
    ssim,
    texture_distance,
)

__all__ = [
    "colour_error",
    "crop_border",
    "detail_ratio",
    "lr_consistency",
    "luma",
    "psnr",
    "quantise",
    "seam",
    "ssim",
    "texture_distance",
]
