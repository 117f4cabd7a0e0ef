#!/usr/bin/env python3
"""Draws the gallery of the documentation again: `scripts/gallery.py PHOTOS PEER.pth`.

PHOTOS holds the free photographs named below, about 1000 pixels wide; PEER is a ×4 network that
spandrel reads (Real-ESRGAN x4plus). A strip shows the input with its pixels as squares, yoda's
result and the peer's, at 100 %. Nothing here was trained on.
"""

import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from spandrel import ModelLoader

import yoda_cli

OUT = Path(__file__).parent.parent / "docs" / "pictures"
SIDE, SHOWN, SCALE = 384, 256, 4  # pixels of a crop, of a strip's picture; how much is lost


@dataclass(frozen=True)
class Strip:
    """A crop of a photograph, its upper left corner, and what is done to it before it is shown."""

    name: str
    photo: str
    left: int
    top: int
    model: str = "general"
    damage: str = ""


STRIPS = (
    Strip("face", "clic_076_full.jpg", 131, 208),
    Strip("fur", "squeeze_431_full.jpg", 120, 221),
    Strip("leaves", "squeeze_443_full.jpg", 349, 190),
    Strip("jpeg", "budgie_016_full.jpg", 104, 60, damage="jpeg"),
    Strip("noise", "budgie_032_full.jpg", 376, 100, damage="noise"),
    Strip("windows", "matheus_331_full.jpg", 486, 178),
)


def small(strip: Strip, photos: Path) -> Image.Image:
    """The input: a crop made smaller, and damaged."""
    box = (strip.left, strip.top, strip.left + SIDE, strip.top + SIDE)
    crop = Image.open(photos / strip.photo).convert("RGB").crop(box)
    lr = crop.resize((SIDE // SCALE, SIDE // SCALE), Image.Resampling.BICUBIC)
    if strip.damage == "noise":
        noise = np.random.default_rng(0).normal(0, 10, (SIDE // SCALE, SIDE // SCALE, 3))
        lr = Image.fromarray(np.clip(np.asarray(lr) + noise, 0, 255).round().astype(np.uint8))
    return lr


def encoded(strip: Strip, lr: Image.Image) -> bytes:
    """The input as a file."""
    file = BytesIO()
    if strip.damage == "jpeg":
        lr.save(file, "JPEG", quality=30)
    else:
        lr.save(file, "PNG")
    return file.getvalue()


def as_image(tensor: torch.Tensor) -> Image.Image:
    """(1, 3, H, W) in [0, 1] as a picture."""
    return Image.fromarray((tensor[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def as_tensor(image: Image.Image) -> torch.Tensor:
    """A picture as (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def draw(strip: Strip, photos: Path, peer: torch.nn.Module) -> None:
    """Writes one strip."""
    data = encoded(strip, small(strip, photos))
    lr = Image.open(BytesIO(data)).convert("RGB")
    ours = yoda_cli.upscale(data, model=strip.model).image
    with torch.inference_mode():
        theirs = as_image(peer(as_tensor(lr)))
    squares = lr.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    edge = (SIDE - SHOWN) // 2
    sheet = Image.new("RGB", (3 * SHOWN, SHOWN))
    for i, picture in enumerate((squares, ours, theirs)):
        sheet.paste(picture.crop((edge, edge, edge + SHOWN, edge + SHOWN)), (i * SHOWN, 0))
    OUT.mkdir(parents=True, exist_ok=True)
    sheet.save(OUT / f"{strip.name}.webp", quality=90, method=6)


def draw_fidelity(strip: Strip, photos: Path) -> None:
    """Writes the strip of one picture with fidelity 0, by default, and 1."""
    data = encoded(strip, small(strip, photos))
    edge = (SIDE - SHOWN) // 2
    sheet = Image.new("RGB", (3 * SHOWN, SHOWN))
    for i, fidelity in enumerate((0.0, None, 1.0)):
        picture = yoda_cli.upscale(data, fidelity=fidelity).image
        sheet.paste(picture.crop((edge, edge, edge + SHOWN, edge + SHOWN)), (i * SHOWN, 0))
    sheet.save(OUT / "fidelity.webp", quality=90, method=6)


def main() -> None:
    photos, weights = map(Path, sys.argv[1:3])
    draw_fidelity(STRIPS[1], photos)
    peer = ModelLoader().load_from_file(weights).model.eval()
    for strip in STRIPS:
        draw(strip, photos, peer)


if __name__ == "__main__":
    main()
