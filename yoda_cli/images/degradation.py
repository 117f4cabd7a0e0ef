"""How damaged a picture is, seen in its pixels alone: the strength for the encoder, 0 … 1.

A small network reads statistics of windows spread over the picture: the energies of the bands of
8×8 cosine transforms (noise fills the high ones, blur and codecs empty them), steps between a
codec's blocks, how wide edges are, and how normalised neighbours correlate (BRISQUE, Mittal et al.
2012). `scripts/damage_net.py` trained it on what ``training.degrade`` makes; it knows no file
format.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

from yoda_cli.arrays import as_array, as_float32, library_of
from yoda_cli.images.degradation_net import strengths, weights_of
from yoda_cli.images.resize import as_floats
from yoda_cli.weights.entries import PACKAGE

if TYPE_CHECKING:
    from torch import Tensor

DAMAGE_WEIGHTS = PACKAGE / "checkpoints" / "damage.safetensors"
WINDOW = 96  # pixels on a side; larger than in training, as more of a picture is ranked better
LEAST_SIDE = 24  # of a window in which every statistic is defined
ACROSS = 5  # windows along a side, at most
CLEAN_BELOW = 0.14  # of 160 held-out clean pictures 99 % lie below, of damaged ones 6 to 8 %


def estimate(image: Tensor) -> float:
    """How strongly to restore (1, 3, H, W), floats in [0, 1] or bytes; 0 is a clean picture.

    The median over the windows: a few smooth or busy ones do not decide.
    """
    height, width = image.shape[-2:]
    if min(height, width) < LEAST_SIDE:
        return 0.0
    told = []
    for top in _starts(height):
        row = image[..., top : top + WINDOW, :]
        crops = [row[..., left : left + WINDOW] for left in _starts(width)]
        windows = as_array(as_float32(as_floats(library_of(image).concatenate(crops))))
        told.append(strengths(windows, weights_of(DAMAGE_WEIGHTS)))
    ordered = np.sort(np.concatenate(told))
    strength = float(ordered[(len(ordered) - 1) // 2])
    return 0.0 if strength < CLEAN_BELOW else round(min(strength, 1.0), 2)


def damage_net_digest() -> str:
    """Which network judges, in a few characters."""
    return hashlib.sha256(DAMAGE_WEIGHTS.read_bytes()).hexdigest()[:16]


def _starts(length: int) -> list[int]:
    """First pixels of up to ``ACROSS`` windows, spread evenly from edge to edge."""
    room = max(length - WINDOW, 0)
    count = min(ACROSS, 1 + math.ceil(room / WINDOW))
    return [room * i // max(count - 1, 1) for i in range(count)]
