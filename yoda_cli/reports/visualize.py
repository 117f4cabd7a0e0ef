"""Maps made visible: colours over a picture with a legend, labelled sheets. Pillow and OpenCV only.

Pictures are (3, h, w) uint8 tensors; maps (1, 1, h, w) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Pixels = npt.NDArray[np.uint8]

OPACITY = 0.6
LABEL_PIXELS = 22
GAP_PIXELS = 4
LEGEND_PIXELS = 64
MIN_LEGEND_SIDE = 96  # below this a legend would be larger than the picture


def viridis(attention: Tensor) -> Tensor:
    """A map in viridis, which is perceptually uniform and readable without colour vision."""
    import cv2  # here: reports are imported by runs that show nothing

    levels = (attention[0, 0].clamp(0, 1) * 255).round().byte().cpu().numpy()
    bgr = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), dtype=np.uint8)
    return as_tensor(bgr[..., ::-1])


def overlay(picture: Tensor, attention: Tensor) -> Tensor:
    """The map's colours over the grey of the picture, both of the same size."""
    grey = picture.float().mean(0, keepdim=True).expand(3, -1, -1)
    mixed = OPACITY * viridis(attention).float() + (1 - OPACITY) * grey
    return mixed.round().byte()


def with_legend(picture: Tensor) -> Tensor:
    """``picture`` with the colour bar of a map from 0 to 1 at its right."""
    height = picture.shape[1]
    if height < MIN_LEGEND_SIDE:
        return picture
    ramp = torch.linspace(1, 0, height)[None, None, :, None].expand(1, 1, height, 16)
    canvas = torch.full((3, height, LEGEND_PIXELS), 255, dtype=torch.uint8)
    canvas[:, :, 8:24] = viridis(ramp)
    image = Image.fromarray(as_pixels(canvas))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = min(max((1 - value) * height, 8), height - 8)
        draw.text((30, y), f"{value:g}", fill=0, font=font, anchor="lm")
    return torch.cat([picture, as_tensor(np.asarray(image))], 2)


def sheet(panels: Sequence[tuple[str, Tensor]], columns: int) -> Tensor:
    """Labelled pictures of one size in rows of ``columns``."""
    height, width = panels[0][1].shape[1:]
    rows = -(-len(panels) // columns)
    step_y, step_x = height + LABEL_PIXELS + GAP_PIXELS, width + GAP_PIXELS
    image = Image.new("RGB", (columns * step_x - GAP_PIXELS, rows * step_y - GAP_PIXELS), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for index, (label, panel) in enumerate(panels):
        x, y = index % columns * step_x, index // columns * step_y
        draw.text((x + 4, y + LABEL_PIXELS // 2), label, fill="black", font=font, anchor="lm")
        image.paste(Image.fromarray(as_pixels(panel)), (x, y + LABEL_PIXELS))
    return as_tensor(np.asarray(image))


def as_pixels(picture: Tensor) -> Pixels:
    """(3, h, w) → (h, w, 3)."""
    return np.ascontiguousarray(picture.permute(1, 2, 0).numpy())


def as_tensor(pixels: Pixels) -> Tensor:
    """(h, w, 3) → (3, h, w)."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
