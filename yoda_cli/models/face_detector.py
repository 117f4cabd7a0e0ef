"""Where the faces of a picture are: YuNet through OpenCV. Knows no restoration.

Pictures are (1, 3, h, w) in [0, 1]; places are (x, y), and the first pixel reaches from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from yoda_cli.errors import WeightsError
from yoda_cli.images.resize import as_floats

DETECTOR = "yunet_n_dynamic.onnx"
SURE = 0.85  # of 1: what is less sure is left alone
OVERLAP = 0.3  # of two boxes, above which the surer one counts
MOST = 5000  # faces
#: Long sides in pixels between which a picture is looked at: larger ones are reduced, because the
#: detector knows faces of up to about 300 pixels, and smaller ones enlarged.
LEAST_SIDE, LARGEST_SIDE = 640, 2048

Places = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Face:
    """``places`` (5, 2): the eyes (the left one in the picture first), the tip of the nose, the
    corners of the mouth. ``score`` in [0, 1], ``width`` and ``height`` of its box in pixels."""

    places: Places
    score: float
    width: float
    height: float


class FaceDetector:
    """The detector in a file; ``WeightsError`` if OpenCV cannot read it."""

    def __init__(self, path: Path) -> None:
        import cv2  # here: every model knows of faces, few find any

        network = np.frombuffer(path.read_bytes(), np.uint8)  # cv2 opens no path beyond ASCII
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._net = cv2.FaceDetectorYN.create(
                "onnx",
                network,
                np.zeros(0, np.uint8),
                (LEAST_SIDE, LEAST_SIDE),
                SURE,
                OVERLAP,
                MOST,
            )
        except cv2.error as error:
            raise WeightsError(f"{path} is not a face detector that OpenCV can read") from error
        finally:
            cv2.utils.logging.setLogLevel(level)

    def __call__(self, picture: Tensor) -> Sequence[Face]:
        """All faces that are sure, the largest first."""
        height, width = picture.shape[-2:]
        factor = min(max(1.0, LEAST_SIDE / max(height, width)), LARGEST_SIDE / max(height, width))
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        seen = as_floats(picture)
        if size != (height, width):
            seen = F.interpolate(seen, size, mode="bilinear", antialias=True)
        pixels = (seen[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
        self._net.setInputSize((size[1], size[0]))
        _, found = self._net.detect(np.ascontiguousarray(pixels[..., ::-1]))
        faces = [face_of(row, width / size[1], height / size[0]) for row in _rows(found)]
        return sorted(faces, key=lambda face: -face.width * face.height)


def _rows(found: object) -> Sequence[NDArray[np.float32]]:
    return [] if found is None else list(np.asarray(found, np.float32))


def face_of(row: NDArray[np.float32], across: float, down: float) -> Face:
    """From YuNet's row: box, five places (the person's right eye first), score."""
    places = row[4:14].reshape(5, 2) * (across, down)
    return Face(
        places.astype(np.float32), float(row[14]), float(row[2]) * across, float(row[3]) * down
    )
