"""The Python API: a picture in, a result out, by the same functions as the command line."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.images import read_picture
from yoda_cli.models.model import Model
from yoda_cli.upscaling.checks import check_options, scale_for, with_scale
from yoda_cli.upscaling.picture import settle_denoise, visible
from yoda_cli.upscaling.pipeline import get_model, plan_picture, upscale_tensor
from yoda_cli.upscaling.result import Result
from yoda_cli.upscaling.settings import Settings, resolve

Input = str | Path | bytes | Image.Image | npt.NDArray[np.uint8] | Tensor


@lru_cache(maxsize=2)
def _model(options: UpscaleOptions) -> Model:
    return get_model(options)


def _ready(options: UpscaleOptions) -> Model:
    """The model, kept for the next call; only what decides how it is loaded counts."""
    check_options(options)
    return _model(
        UpscaleOptions(
            model=options.model,
            device=options.device,
            precision=options.precision,
            exact=options.exact,
            attention=options.attention,
            heads=options.heads,
            task=options.task,
            stage1=options.stage1,
        )
    )


def upscale(image: Input, options: UpscaleOptions | None = None) -> Result:
    """Enlarge a picture: a path, a file's bytes, a Pillow image, (H, W, 3) uint8 or a tensor
    (1, 3, H, W) in [0, 1]. ``Result.image`` is (1, 3, H', W') in [0, 1].

    Transparency and metadata are those of the files: the command line keeps them.
    """
    options = options or UpscaleOptions()
    model = _ready(options)
    lr, settings = _settled(image, model, options)
    return upscale_tensor(lr, model, settings)


def attention_map(image: Input, options: UpscaleOptions | None = None) -> Tensor:
    """A (1, 1, H, W) in [0, 1] on the picture's own grid: where diffusion would work first."""
    options = options or UpscaleOptions()
    model = _ready(options)
    lr, settings = _settled(image, model, options)
    return plan_picture(lr, model, settings).attention


def _settled(image: Input, model: Model, options: UpscaleOptions) -> tuple[Tensor, Settings]:
    """The LR tensor, and options resolved for it."""
    if isinstance(image, (str, Path, bytes)):
        picture = read_picture(image if isinstance(image, bytes) else Path(image))
        lr = visible(picture)
    else:
        lr = _tensor(image)
    options, _ = settle_denoise(lr, model, options)
    height, width = lr.shape[-2:]
    options = with_scale(options, scale_for(options, width, height, model.scale))
    return lr, resolve(options, model)


def _tensor(image: Image.Image | npt.NDArray[np.uint8] | Tensor) -> Tensor:
    """(1, 3, H, W) float32; ValueError for another shape, TypeError for another type."""
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an array must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
        return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    if not isinstance(image, Tensor):
        raise TypeError(f"{type(image).__name__} is no picture")
    if image.ndim != 4 or image.shape[:2] != (1, 3) or 0 in image.shape:
        raise ValueError(f"a tensor must be (1, 3, H, W), not {tuple(image.shape)}")
    return image.float()
