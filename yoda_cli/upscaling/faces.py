"""The faces of a photograph: found, brought into the position that ``face`` was trained on,
restored, and put back under a soft mask.

Pictures are (1, 3, H, W) in [0, 1]. What no mask covers keeps its very bytes. A face is left alone
where it is too small to be told from any other, or so large that the picture itself says more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoda_cli.images.resize import as_floats, imresize
from yoda_cli.models.face_detector import Face
from yoda_cli.tiling.windows import Window

#: Where the detector sees eyes, nose and mouth in the training faces, in parts of their side: the
#: mean over 98 of them, made symmetric.
TEMPLATE = np.array(
    [[0.379, 0.464], [0.621, 0.464], [0.5, 0.620], [0.391, 0.716], [0.609, 0.716]], np.float32
)
SMALLEST, LARGEST = 20, 160  # input pixels: the side of the square around a face, hair and chin
FARTHEST = 0.1  # of the side: how far the five places may lie from the template's on average
CENTRE, REACH = (0.5, 0.52), (0.36, 0.44)  # of the ellipse that is pasted, in parts of the side
SOFT = 0.35  # of the ellipse's radius, over which it fades
#: How much of a restored face is pasted over the enlarged one, by how many degrees it leans: their
#: errors differ, so that a mix errs less than either, and the model of faces knows upright ones. Of
#: small faces it knows less as well: a share of that, by their side in input pixels. On 81
#: validation faces, half of them damaged, all of it made four worse, this none.
UPRIGHT, LEANING = (10.0, 0.7), (25.0, 0.45)
SMALL, LARGE = (20.0, 0.6), (32.0, 1.0)

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Placed:
    """A face, and the square of ``side`` pixels that is restored for it.

    Both matrices (2, 3) take (x, y) of the input, whose first pixel reaches from 0 to 1:
    ``to_face`` to the template, in parts of its side; ``to_square`` to pixels of the square.
    """

    to_face: Matrix
    to_square: Matrix
    side: int

    @property
    def lean(self) -> float:
        """Degrees, 0 to 45, between the face on its square and an upright one."""
        angle = math.degrees(math.atan2(self.to_face[1, 0], self.to_face[0, 0]))
        return abs(angle - 90 * round(angle / 90))

    @property
    def strength(self) -> float:
        """The share of the restored face in what is pasted."""
        upright = _between(self.lean, UPRIGHT, LEANING)
        return upright * _between(length_of(self.to_face), SMALL, LARGE)


def restored_faces(
    lr: Tensor, image: Tensor, faces: Sequence[Face], restore: Callable[[Tensor], Tensor]
) -> tuple[Tensor, int]:
    """``image``, the enlarged ``lr``, with its ``faces`` restored, and how many were.

    ``restore`` enlarges the square of one face, (1, 3, n, n) in [0, 1].
    """
    placed = [found for face in faces if (found := place(face)) is not None]
    if not placed:
        return image, 0
    image = image.clone()
    source = _pixels(as_floats(lr))
    for one in placed:
        paste(image, one, restore(square_of(source, one)), image.shape[-1] / lr.shape[-1])
    return image, len(placed)


def place(face: Face) -> Placed | None:
    """The square of a face, by the similarity that brings its five places nearest to the
    template; None where they do not lie like a face's, or its size is not for ``face``."""
    to_face = similarity(face.places.astype(np.float64), TEMPLATE.astype(np.float64))
    length = length_of(to_face)
    mapped = face.places @ to_face[:, :2].T + to_face[:, 2]
    off = float(np.hypot(*(mapped - TEMPLATE).T).mean())
    if not SMALLEST <= length <= LARGEST or off > FARTHEST:
        return None
    return Placed(to_face, *on_the_grid(to_face, length))


def length_of(to_face: Matrix) -> float:
    """The side of the square around a face, in pixels of what ``to_face`` takes."""
    return 1 / math.hypot(to_face[0, 0], to_face[1, 0])


def on_the_grid(to_face: Matrix, length: float) -> tuple[Matrix, int]:
    """A square of whole input pixels around a face: its matrix and its side.

    It is turned by quarters only, so that nothing is interpolated: a head that leans costs less
    than the blur of turning it upright, which takes away more than ``face`` gives.
    """
    quarters = round(math.atan2(to_face[1, 0], to_face[0, 0]) / (math.pi / 2))
    side = math.ceil(length / 8) * 8
    centre = np.linalg.solve(to_face[:, :2], np.full(2, 0.5) - to_face[:, 2])
    centre = np.round(centre - side / 2) + side / 2
    cosine, sine = round(math.cos(quarters * math.pi / 2)), round(math.sin(quarters * math.pi / 2))
    turn = np.array([[cosine, -sine], [sine, cosine]], np.float64)
    return np.column_stack([turn, np.full(2, side / 2) - turn @ centre]), side


def similarity(places: Matrix, onto: Matrix) -> Matrix:
    """The turn, scale and shift (2, 3) that takes ``places`` nearest to ``onto``, both (n, 2), in
    least squares (Umeyama, 1991, eqs. 40 to 42, in the plane without reflection)."""
    middle, target = places.mean(0), onto.mean(0)
    a, b = places - middle, onto - target
    size = float((a**2).sum())
    cosine = float((a * b).sum()) / size
    sine = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / size
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, target - turn @ middle])


def square_of(source: NDArray[np.float32], placed: Placed) -> Tensor:
    """A face of ``source`` (h, w, 3) upright on its square, (1, 3, n, n) in [0, 1]."""
    warped = cv2.warpAffine(
        source, of_centres(placed.to_square), (placed.side, placed.side),
        flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return torch.from_numpy(warped).permute(2, 0, 1)[None].clamp(0, 1)


def paste(image: Tensor, placed: Placed, face: Tensor, scale: float) -> None:
    """Put a restored square into ``image``, ``scale`` times the input, in place."""
    side = max(1, round(placed.side * scale))
    face = imresize(face, (side, side)).clamp(0, 1)
    shrink = np.diag([1 / scale, 1 / scale, 1])
    to_face = placed.to_face @ shrink
    window = _window(to_face, image.shape[-2], image.shape[-1])
    if window.height <= 0 or window.width <= 0:
        return
    matrix = of_centres(placed.to_square @ shrink * (side / placed.side))
    matrix[:, 2] += matrix[:, :2] @ (window.left, window.top)
    turned = cv2.warpAffine(
        _pixels(face), matrix, (window.width, window.height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    mask = placed.strength * soft_mask(to_face, window)
    inside = window.cut(image)
    new = torch.from_numpy(turned).permute(2, 0, 1)[None].clamp(0, 1)
    inside.copy_(torch.where(mask > 0, inside.lerp(new, mask), inside))


def soft_mask(to_face: Matrix, window: Window) -> Tensor:
    """(1, 1, h, w): 1 in the middle of the face, 0 from the ellipse's edge on."""
    x = np.arange(window.left, window.right) + 0.5
    y = np.arange(window.top, window.bottom)[:, None] + 0.5
    u, v = (row[0] * x + row[1] * y + row[2] for row in to_face)
    radius = np.hypot((u - CENTRE[0]) / REACH[0], (v - CENTRE[1]) / REACH[1])
    rise = np.clip((1 - radius) / SOFT, 0, 1)
    smooth = rise * rise * (3 - 2 * rise)
    return torch.from_numpy(smooth.astype(np.float32))[None, None]


def _window(to_face: Matrix, height: int, width: int) -> Window:
    """The part of the result in which the ellipse lies."""
    back = cv2.invertAffineTransform(to_face)
    corners = np.array(
        [[CENTRE[0] + a * REACH[0], CENTRE[1] + b * REACH[1]] for a in (-1, 1) for b in (-1, 1)]
    )
    at = corners @ back[:, :2].T + back[:, 2]
    (left, top), (right, bottom) = np.floor(at.min(0)), np.ceil(at.max(0)) + 1
    return Window(max(int(top), 0), max(int(left), 0), min(int(bottom), height),
                  min(int(right), width))  # fmt: skip


def of_centres(matrix: Matrix) -> Matrix:
    """The same between grids that count from the first pixel's centre, as OpenCV's do."""
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return shifted


def _between(value: float, low: tuple[float, float], high: tuple[float, float]) -> float:
    """Along the line through two points, and constant beyond them."""
    return float(np.interp(value, (low[0], high[0]), (low[1], high[1])))


def _pixels(image: Tensor) -> NDArray[np.float32]:
    pixels: NDArray[np.float32] = image[0].permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels
