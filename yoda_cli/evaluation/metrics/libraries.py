"""Measures that well-kept libraries compute, of the extra ``metrics``. Pictures (1, 3, H, W).

GMSD: Xue et al. 2014, by piq. JOD: ColorVideoVDP (Mantiuk et al. 2024), by its authors' cvvdp.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from yoda_cli.errors import WeightsError, how_to_install

DISPLAY = "standard_4k"  # what a picture is looked at on: 30 inches from 75 cm, 200 cd/m²


def gmsd() -> Callable[[Tensor, Tensor], float]:
    """Gradient magnitude similarity deviation of RGB; 0 is the same picture."""
    piq = library("piq")
    return lambda sr, hr: float(piq.gmsd(sr.float(), hr.float(), data_range=1.0))


def jod() -> Callable[[Tensor, Tensor], float]:
    """Just-objectionable differences, 10 is the same picture."""
    judge = colour_video_vdp()

    @torch.no_grad()
    def measure(sr: Tensor, hr: Tensor) -> float:
        return float(judge.predict(sr.float(), hr.float(), dim_order="BCHW")[0])

    return measure


@cache
def colour_video_vdp() -> Any:
    """One judge for the run, on the CPU."""
    return library("pycvvdp").cvvdp(display_name=DISPLAY, device=torch.device("cpu"))


def library(name: str) -> Any:
    """The module, or ``WeightsError`` that names the extra."""
    try:
        return import_module(name)
    except ImportError as error:
        raise WeightsError(f"it needs the extra: {how_to_install('metrics')}") from error
