"""Whether a face is still the same person's: how far dlib's descriptors of it lie apart.

A descriptor is 128 numbers of dlib's ResNet (Davis King, CC0). Two pictures of one person lie below
0.6, as dlib is used; 0 is the same picture. Faces are found in the truth, and the result is looked
at in the same places. dlib and its networks come with the extra ``identity``; nothing is
downloaded here. Pictures are (1, 3, H, W) in [0, 1].
"""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from yoda_cli.errors import need

EXTRA = "identity"
PLACES = "shape_predictor_5_face_landmarks.dat"
DESCRIPTOR = "dlib_face_recognition_resnet_model_v1.dat"
ENLARGED = 1  # the detector looks at the picture twice as large: for faces from 40 pixels on

Pixels = NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class Identity:
    """The mean distance over the faces of the truth; nan where there is none.

    ``find`` gives the places of every face in a picture, ``describe`` the descriptor of the face
    at a place.
    """

    find: Callable[[Pixels], Iterator[Any]]
    describe: Callable[[Pixels, Any], NDArray[np.float64]]

    def __call__(self, sr: Tensor, hr: Tensor) -> float:
        made, truth = pixels(sr), pixels(hr)
        apart = [
            float(np.linalg.norm(self.describe(made, place) - self.describe(truth, place)))
            for place in self.find(truth)
        ]
        return statistics.fmean(apart) if apart else math.nan


def pixels(image: Tensor) -> Pixels:
    """(H, W, 3) bytes."""
    levels = (image[0].clamp(0, 1) * 255 + 0.5).floor().byte()
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


@lru_cache(maxsize=1)
def load_identity() -> Identity:
    """dlib's detector and networks; WeightsError where they are not installed."""
    need("dlib", EXTRA)
    need("face_recognition_models", EXTRA)
    import dlib

    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "models"  # the package itself needs an old setuptools
    detector = dlib.get_frontal_face_detector()
    places = dlib.shape_predictor(str(folder / PLACES))
    network = dlib.face_recognition_model_v1(str(folder / DESCRIPTOR))

    def find(picture: Pixels) -> Iterator[Any]:
        return (places(picture, box) for box in detector(picture, ENLARGED))

    def describe(picture: Pixels, place: Any) -> NDArray[np.float64]:
        return np.array(network.compute_face_descriptor(picture, place))

    return Identity(find, describe)
