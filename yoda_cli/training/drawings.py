"""Drawn pictures for training: pages, screens, comics and charts, whose truth is exact.

Text is set in whatever fonts are given (Pillow's own, Aileron, is in the public domain); shapes are
drawn twice as large and reduced, so edges are smooth. Nothing is read but the fonts.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

OVER = 2  # times the size that is drawn
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]
LETTERS = string.ascii_lowercase * 4 + string.ascii_uppercase + string.digits + ".,;:!?&%-()/"


def draw(size: int, fonts: Sequence[Path], rng: Generator) -> NDArray[np.uint8]:
    """(size, size, 3) uint8: one drawn picture."""
    side = size * OVER
    dark = rng.random() < 0.25
    paper = _colour(rng, 0, 80) if dark else _colour(rng, 175, 255)
    picture = Image.new("RGB", (side, side), paper)
    if rng.random() < 0.25:
        picture = _gradient(side, paper, _colour(rng, 0, 255))
    pen = ImageDraw.Draw(picture)
    kind = rng.random()
    if kind < 0.6:
        for _ in range(int(rng.integers(0, 4))):
            _shape(pen, side, rng)
        _text(pen, side, fonts, dark, rng)
    else:
        for _ in range(int(rng.integers(4, 18))):
            _shape(pen, side, rng)
        if kind > 0.8:
            _text(pen, side, fonts, dark, rng)
    if rng.random() < 0.3:
        picture = picture.rotate(
            float(rng.uniform(-12, 12)), Image.Resampling.BICUBIC, fillcolor=paper
        )
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX))


def _colour(rng: Generator, low: int, high: int) -> Colour:
    """Grey in half of the cases."""
    if rng.random() < 0.5:
        value = int(rng.integers(low, high + 1))
        return value, value, value
    red, green, blue = (int(v) for v in rng.integers(low, high + 1, 3))
    return red, green, blue


def _gradient(side: int, first: Colour, last: Colour) -> Image.Image:
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    lines = np.array(first) * (1 - ramp) + np.array(last) * ramp
    return Image.fromarray(np.broadcast_to(lines, (side, side, 3)).astype(np.uint8))


def _font(fonts: Sequence[Path], height: int, rng: Generator) -> Font:
    which = int(rng.integers(0, len(fonts) + 1))
    if which == len(fonts):
        return ImageFont.load_default(height)
    return ImageFont.truetype(fonts[which], height)


def _text(
    pen: ImageDraw.ImageDraw, side: int, fonts: Sequence[Path], dark: bool, rng: Generator
) -> None:
    """Lines of random words in one font, of one height, sometimes with headings."""
    top = -int(rng.integers(0, 20))
    while top < side:
        height = int(OVER * np.exp(rng.uniform(np.log(12), np.log(80))))
        font = _font(fonts, height, rng)
        ink = _colour(rng, 170, 255) if dark else _colour(rng, 0, 110)
        if rng.random() < 0.1:
            ink = _colour(rng, 0, 255)
        for _ in range(int(rng.integers(1, 7))):
            line = " ".join(_word(rng) for _ in range(max(2, 3 * side // (height * 3))))
            pen.text((-int(rng.integers(0, height)), top), line, font=font, fill=ink)
            top += int(height * rng.uniform(1.0, 1.5))


def _word(rng: Generator) -> str:
    return "".join(rng.choice(list(LETTERS), int(rng.integers(1, 10))))


def _shape(pen: ImageDraw.ImageDraw, side: int, rng: Generator) -> None:
    """A rectangle, an ellipse, a polygon, a line or a row of lines, filled or outlined."""
    x, y = (float(v) for v in rng.uniform(-0.2, 1.0, 2) * side)
    width, height = (float(v) for v in rng.uniform(0.05, 0.7, 2) * side)
    fill = _colour(rng, 0, 255)
    line = round(OVER * float(np.exp(rng.uniform(0, np.log(10)))))
    edge = (0, 0, 0) if rng.random() < 0.6 else _colour(rng, 0, 255)
    kind = int(rng.integers(0, 5))
    if kind == 0:
        pen.rectangle((x, y, x + width, y + height), fill=fill, outline=edge, width=line)
    elif kind == 1:
        pen.ellipse((x, y, x + width, y + height), fill=fill, outline=edge, width=line)
    elif kind == 2:
        corners = [(x + width * float(a), y + height * float(b)) for a, b in rng.random((5, 2))]
        pen.polygon(corners, fill=fill, outline=edge, width=line)
    elif kind == 3:
        pen.line((x, y, x + width, y + height * float(rng.uniform(-1, 1))), fill=edge, width=line)
    else:
        step = 2 * line + float(rng.uniform(2, 12)) * OVER
        for i in range(int(rng.integers(3, 12))):
            pen.line((x, y + i * step, x + width, y + i * step), fill=edge, width=line)
