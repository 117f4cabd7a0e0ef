"""Training pairs: pictures held as uint8 on the device, cropped, flipped, degraded there.

LR crops are cut from the whole picture's LR (the benchmark's bicubic, rounded to 8 bits), so they
carry no crop border. Attention maps are computed once per picture and cached in a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from yoda_cli.attention import SOURCES
from yoda_cli.errors import InputError, NotFoundError
from yoda_cli.files.paths import entries_of, is_file, is_folder
from yoda_cli.images.formats import SUFFIXES
from yoda_cli.images.picture import fill_transparent
from yoda_cli.images.reading import read_picture
from yoda_cli.images.resize import as_floats, crop_to_multiple, imresize
from yoda_cli.training.degrade import degrade
from yoda_cli.training.drawings import draw

log = logging.getLogger(__name__)

LEAST_ERROR = 1.25  # levels of 255: smooth crops are picked too
LEAST_SIDE = 32  # of a picture that is validated on
CODEC_BLOCK = 8  # pixels on a side
DRAWN_SIDE = 512  # pixels of a drawn picture
VALIDATION_EVERY = 20  # every 20th file in name order is never trained on


def list_pictures(folder: Path) -> list[Path]:
    """The pictures directly in a folder, in name order."""
    if not is_folder(folder):
        raise NotFoundError(f"no such folder: {folder}")
    paths = [p for p in entries_of(folder) if p.suffix.lower() in SUFFIXES and is_file(p)]
    if not paths:
        raise NotFoundError(f"no pictures in {folder}")
    return paths


def split_validation(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(training, validation): every 20th file in name order is validation; a single one is both."""
    if len(paths) == 1:
        log.warning("one picture: it is trained on, and the scores are its own")
        return list(paths), list(paths)
    held = list(paths[::VALIDATION_EVERY])
    return [p for p in paths if p not in set(held)], held


def load_held_out(paths: Sequence[Path], factor: float) -> list[Tensor]:
    """The pictures to validate on; an error before the first step rather than after the last."""
    found = []
    for path in paths:
        picture = load_reduced(path, factor)
        if min(picture.shape[-2:]) < LEAST_SIDE:
            log.warning("not validated on %s: smaller than %d pixels", path.name, LEAST_SIDE)
        else:
            found.append(picture)
    if not found:
        held = ", ".join(path.name for path in paths)
        raise InputError(f"nothing to validate on: {held} are smaller than {LEAST_SIDE} pixels")
    return found


def load_rgb(path: Path) -> Tensor:
    """(1, 3, H, W) uint8, upright, 16 bits rounded to 8; read as a picture to enlarge is.

    Colours under full transparency are hidden ones: those of visible neighbours take their place.
    """
    picture = read_picture(path, as_bytes=True)
    rgb = picture.rgb
    if picture.alpha is not None:
        rgb = fill_transparent(as_floats(rgb), picture.alpha)
    return rgb if rgb.dtype == torch.uint8 else (rgb.clamp(0, 1) * 255).round().byte()


def load_reduced(path: Path, factor: float) -> Tensor:
    """The picture of ``path`` made ``factor`` ≥ 1 times smaller: (1, 3, H, W) uint8."""
    picture = load_rgb(path)
    return picture if factor == 1 else imresize(picture, scale=1 / factor)


@dataclass(frozen=True)
class Plane:
    """Many pictures of one kind in one flat buffer: (pixels, C) uint8, with offsets and widths."""

    pixels: Tensor
    offset: Tensor
    width: Tensor

    @staticmethod
    def pack(pictures: Sequence[Tensor], device: torch.device) -> Plane:
        """From (1, C, H, W) uint8 pictures."""
        sizes = torch.tensor([p.shape[-2] * p.shape[-1] for p in pictures])
        flat = torch.cat([p[0].flatten(1).t() for p in pictures])
        return Plane(
            flat.contiguous().to(device),
            (sizes.cumsum(0) - sizes).to(device),
            torch.tensor([p.shape[-1] for p in pictures], device=device),
        )

    def crop(self, picture: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
        """(B, C, size, size) uint8 windows; ``picture``, ``top``, ``left`` are (B,)."""
        span = torch.arange(size, device=self.pixels.device)
        start = self.offset[picture] + top * self.width[picture] + left
        index = start[:, None, None] + span[:, None] * self.width[picture][:, None, None] + span
        return self.pixels[index].permute(0, 3, 1, 2)


class Place(NamedTuple):
    """The corner of a crop on the LR grid of a picture."""

    picture: int
    top: int
    left: int


@dataclass(frozen=True)
class Batch:
    """hr (B, 3, P, P) and lr (B, 3, P/scale, P/scale) in [0, 1]; maps (B, 1, p, p) by source;
    ``strength`` (B,) is the degradation of each LR crop."""

    hr: Tensor
    lr: Tensor
    maps: Mapping[str, Tensor]
    strength: Tensor


@dataclass(frozen=True)
class PairStore:
    """All training pictures with their LR and attention maps, ready to be cropped."""

    hr: Plane
    lr: Plane
    maps: Mapping[str, Plane]
    lr_height: Tensor
    scale: int

    @staticmethod
    def load(
        paths: Sequence[Path],
        scale: int,
        sources: Sequence[str],
        map_cache: Path,
        device: torch.device,
        min_lr: int,
        reduce: Sequence[float] = (1.0,),
        drawings: int = 0,
    ) -> PairStore:
        """Read pictures, and draw ``drawings`` more, the same ones each time.

        Those with an LR side under ``min_lr`` are left out, and said so.
        """
        hrs: list[Tensor] = []
        lrs: list[Tensor] = []
        maps: dict[str, list[Tensor]] = {source: [] for source in sources}
        for name, picture in _pictures(paths, reduce, drawings):
            hr = crop_to_multiple(picture, scale)
            if min(hr.shape[-2:]) < min_lr * scale:
                log.warning("left out %s: smaller than a crop", name)
                continue
            lr = imresize(hr, scale=1 / scale)
            hrs.append(hr)
            lrs.append(lr)
            for source in sources:
                maps[source].append(_cached_map(name, lr, source, scale, map_cache))
        if not hrs:
            raise InputError(f"no picture is large enough for crops of {min_lr * scale} pixels")
        return PairStore(
            Plane.pack(hrs, device),
            Plane.pack(lrs, device),
            {source: Plane.pack(values, device) for source, values in maps.items()},
            torch.tensor([lr.shape[-2] for lr in lrs], device=device),
            scale,
        )

    def batch(
        self, size: int, lr_patch: int, generator: torch.Generator, degrade: float = 0.0,
        candidates: int = 1,
    ) -> Batch:  # fmt: skip
        """``size`` random crops of ``lr_patch`` LR pixels; a ``degrade`` share of them degraded.

        They are picked from ``candidates`` times as many, by bicubic's error. The generator lives
        on the CPU, so a run draws the same crops on every device.
        """
        device = self.hr.pixels.device

        def random(count: int) -> Tensor:
            return torch.rand(count, generator=generator).to(device)

        many = size * candidates
        picture = (random(many) * len(self.lr.width)).long()
        top = (random(many) * (self.lr_height[picture] - lr_patch + 1)).long()
        left = (random(many) * (self.lr.width[picture] - lr_patch + 1)).long()
        if candidates > 1:
            hr = self.hr.crop(picture, top * self.scale, left * self.scale, lr_patch * self.scale)
            grown = imresize(self.lr.crop(picture, top, left, lr_patch), scale=self.scale)
            error = (grown.float() - hr.float()).abs().mean((1, 2, 3)) + LEAST_ERROR
            kept = torch.multinomial(error.cpu(), size, generator=generator).to(device)
            picture, top, left = picture[kept], top[kept], left[kept]
        hr = self.hr.crop(picture, top * self.scale, left * self.scale, lr_patch * self.scale)
        lr = self.lr.crop(picture, top, left, lr_patch)
        maps = {name: p.crop(picture, top, left, lr_patch) for name, p in self.maps.items()}
        strength = torch.zeros(size, device=device)
        for i in (random(size) < degrade).nonzero().flatten().tolist():
            place = Place(int(picture[i]), int(top[i]), int(left[i]))
            lr[i], strength[i] = self._degraded(place, lr_patch, generator)
        hr_f, lr_f = hr.float() / 255, lr.float() / 255
        turn = torch.randint(0, 8, (1,), generator=generator).item()
        floats = {name: _turn(m.float() / 255, int(turn)) for name, m in maps.items()}
        return Batch(_turn(hr_f, int(turn)), _turn(lr_f, int(turn)), floats, strength)

    def _degraded(
        self, place: Place, lr_patch: int, generator: torch.Generator
    ) -> tuple[Tensor, float]:
        """A degraded LR crop (3, p, p) uint8 and its strength.

        More than the crop is degraded where the picture has it, so that the blocks of a codec lie
        anywhere in it.
        """
        room = min(place.top, place.left, CODEC_BLOCK - 1)
        more = int(torch.randint(room + 1, (1,), generator=generator))
        corner = (place.top - more) * self.scale, (place.left - more) * self.scale
        start = torch.tensor([[place.picture], [corner[0]], [corner[1]]]).to(self.hr.pixels.device)
        picture, top, left = start
        hr = self.hr.crop(picture, top, left, (lr_patch + more) * self.scale)[0]
        seed = int(torch.randint(2**62, (1,), generator=generator))
        pixels = hr.permute(1, 2, 0).cpu().numpy()
        lr, strength = degrade(pixels, self.scale, np.random.default_rng(seed))
        crop = torch.from_numpy(lr[more:, more:].copy()).permute(2, 0, 1)
        return crop.to(hr.device), strength


def _pictures(
    paths: Sequence[Path], reduce: Sequence[float], drawings: int
) -> Iterator[tuple[str, Tensor]]:
    """(name, (1, 3, H, W) uint8): every file at every size, then what is drawn."""
    for path, factor in itertools.product(paths, reduce):
        yield path.name, load_reduced(path, factor)
    for number in range(drawings):
        drawn = draw(DRAWN_SIDE, [], np.random.default_rng(number))
        yield f"drawing-{number}", torch.from_numpy(drawn.copy()).permute(2, 0, 1)[None]


def _turn(x: Tensor, which: int) -> Tensor:
    """One of the eight symmetries of a square."""
    if which & 1:
        x = x.flip(-1)
    if which & 2:
        x = x.flip(-2)
    return x.transpose(-1, -2) if which & 4 else x


def _cached_map(name: str, lr: Tensor, source: str, scale: int, cache: Path) -> Tensor:
    """The (1, 1, h, w) uint8 map of one picture, from the cache if it is there."""
    key = hashlib.sha256(lr.numpy().tobytes()).hexdigest()[:16]
    target = cache / f"{source}-x{scale}" / f"{Path(name).stem}-{key}.png"
    with contextlib.suppress(OSError, ValueError, SyntaxError):  # missing, or half of one
        with Image.open(target) as image:
            kept = torch.from_numpy(np.array(image))[None, None]
        if kept.shape == (1, 1, *lr.shape[-2:]) and kept.dtype == torch.uint8:
            return kept
    values = (SOURCES[source](lr.float() / 255)[0, 0] * 255).round().byte()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    Image.fromarray(values.numpy()).save(partial, format="PNG")
    partial.replace(target)
    return values[None, None]
