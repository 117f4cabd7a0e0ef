"""From an LR image to an SR image: as many passes of the model as the scale needs.

Images are (1, 3, H, W) float32 in [0, 1]. Reads no file, prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.out_of_memory import Recovered, is_out_of_memory
from yoda_cli.errors import DeviceError
from yoda_cli.images.resize import imresize
from yoda_cli.models.model import Model
from yoda_cli.upscaling.latent import photo_pass, photo_survey
from yoda_cli.upscaling.picture_plan import Survey, survey
from yoda_cli.upscaling.pixel import one_pass
from yoda_cli.upscaling.result import Observer, Passed, Result
from yoda_cli.upscaling.settings import check_model, check_options

# Beyond the native factor, up to this the rest is bicubic; above it the model runs again.
RESIZE_ONLY = 1.5


@contextmanager
def exactly(asked: bool) -> Iterator[None]:
    """One thread and reproducible kernels, if asked: the bytes then depend on no worker count."""
    if not asked:
        yield
        return
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn.deterministic
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = cudnn


@contextmanager
def memory_errors_named() -> Iterator[None]:
    """Memory that runs out where nothing smaller can be tried ends the picture with one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError("out of memory for the canvas; give a smaller --block") from error


@torch.inference_mode()
def upscale_tensor(
    lr: Tensor,
    model: Model,
    options: UpscaleOptions,
    observer: Observer | None = None,
    *,
    attention: Tensor | None = None,
    noise_of: Tensor | None = None,
) -> Result:
    """Enlarge ``lr`` by ``options.scale`` (the model's own factor if None).

    ``attention`` (1, 1, h, w) in [0, 1] takes the place of the source's map in the first pass;
    ``noise_of`` is the picture whose noise is drawn, another than ``lr`` for further frames.

    Further passes of the model are run when the scale is well beyond its factor; what remains is
    a bicubic resize.
    """
    check_options(options)
    check_model(model, options)
    observer = observer or Observer()
    if model.parts is not None:
        with exactly(options.exact), memory_errors_named():
            passed = photo_pass(lr, model, options, observer, attention, noise_of)
        return finished([passed], passed.image, passed.seconds)
    began = time.perf_counter()
    native = model.backbone.scale
    scale = options.scale if options.scale is not None else float(native)
    target = tuple(max(1, round(n * scale)) for n in lr.shape[-2:])
    image, reached = lr, 1.0
    passes: list[Passed] = []
    while not passes or scale / reached > RESIZE_ONLY:
        with exactly(options.exact), memory_errors_named():
            passes.append(one_pass(image, model, options, observer, attention, noise_of))
        attention, options = None, replace(options, denoise=0.0)  # what it made is clean
        image = passes[-1].image
        reached *= native
    if tuple(image.shape[-2:]) != target:
        image = imresize(image, (target[0], target[1])).clamp(0, 1)
    return finished(passes, image, time.perf_counter() - began)


def plan_picture(lr: Tensor, model: Model, options: UpscaleOptions) -> Survey:
    """Where a run would work and what it would cost, without running it."""
    check_model(model, options)
    if model.parts is not None:
        return photo_survey(lr, model, options)
    return survey(lr, model, options)


def finished(passes: list[Passed], image: Tensor, seconds: float) -> Result:
    """One result of all passes; map and budget are those of the first."""
    seen = passes[0].survey
    recovered = sum((p.recovered for p in passes), Recovered())
    return Result(
        image,
        seen.attention,
        sum(p.survey.planned_calls for p in passes),
        sum(p.calls for p in passes),
        sum(p.survey.dense_calls for p in passes),
        seconds,
        sum(p.forecast_seconds for p in passes),
        sum(len(p.survey.blocks) for p in passes),
        seen.plan.lower_bound,
        seen.spent,
        recovered,
    )
