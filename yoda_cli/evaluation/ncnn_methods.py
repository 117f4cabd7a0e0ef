"""Our networks as ncnn runs them, as methods of a speed benchmark: the same pictures, faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.graphs import has_runtime
from yoda_cli.evaluation.methods import Method, Outcome
from yoda_cli.models.model import Model
from yoda_cli.models.ncnn_network import has_graphs, load_plain
from yoda_cli.upscaling.picture import resolve_for_picture
from yoda_cli.upscaling.pipeline import upscale_tensor

BY_NCNN = ("yoda by ncnn", "base by ncnn")


def ncnn_runs(options: UpscaleOptions) -> bool:
    """Whether ncnn can run the model that ``options`` name, on the device that they name."""
    return has_runtime() and has_graphs(options) and options.device in ("auto", "cpu")


def ncnn_methods(options: UpscaleOptions) -> list[Method]:
    """``BY_NCNN``, or none where it cannot run the model."""
    if not ncnn_runs(options):
        return []
    asked = replace(options, device="cpu", precision="fp32")
    model = load_plain(asked)
    whole, base = BY_NCNN
    return [
        Method(whole, _by(model, asked)),
        Method(base, _by(model, replace(asked, fidelity=1.0))),
    ]


def _by(model: Model, options: UpscaleOptions) -> Callable[[Tensor], Outcome]:
    def run(lr: Tensor) -> Outcome:
        plain = lr.numpy()
        settings, _ = resolve_for_picture(plain, model, options)  # type: ignore[arg-type]
        result = upscale_tensor(plain, model, settings)  # type: ignore[arg-type]
        image = torch.from_numpy(np.asarray(result.image))
        return Outcome(image, result.calls, result.planned_calls, result.dense_calls)

    return run
