"""One pass of a model over a picture: survey and plan, then blocks of masked reverse diffusion.

A block is an independent trajectory on a window of the canvas. Neighbours overlap widely, share
the noise and the map, and are blended once. Images are (1, 3, H, W) float32 in [0, 1].
"""

from __future__ import annotations

import time

from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.out_of_memory import Counter
from yoda_cli.models.calibration import learn
from yoda_cli.models.model import Model
from yoda_cli.upscaling.blocks import begin, blended, picture_seed, run_block
from yoda_cli.upscaling.result import Observer, Passed


def one_pass(
    lr: Tensor,
    model: Model,
    options: UpscaleOptions,
    observer: Observer,
    attention: Tensor | None = None,
    noise_of: Tensor | None = None,
) -> Passed:
    """Masked reverse diffusion at the model's native factor.

    The noise is that of the picture ``noise_of``, ``lr`` if left out.
    """
    began = time.perf_counter()
    counter = Counter(observer.on_call)
    seen, conditions = begin(
        lr, model, options, attention, whole=observer.whole, counter=counter
    )  # fmt: skip
    forecast = seen.forecast(model)
    observer.on_plan(seen.planned_calls, forecast)
    seed = picture_seed(options.seed, lr if noise_of is None else noise_of)
    made = (
        run_block(seen, i, conditions.take(i), model, options, observer, seed, counter)
        for i in range(len(seen.blocks))
    )
    image = blended(seen, made)
    seconds = time.perf_counter() - began
    recovered = counter.recovered()
    if not (observer.whole or seen.plan.fixed or recovered):  # others are slower for their reasons
        learn(model, forecast, seconds)
    return Passed(image, seen, counter.calls, forecast, seconds, recovered)
