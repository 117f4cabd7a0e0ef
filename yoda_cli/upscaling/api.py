"""The Python API, whose names ``yoda_cli`` hands out: a picture in, a result out.

The same functions do it as for the command line. The networks of the last two calls stay loaded.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from yoda_cli.config import OptionValues, UpscaleOptions, parse_denoise
from yoda_cli.errors import UsageError
from yoda_cli.images import Metadata, Picture, format_of, peek, read_picture, write_picture
from yoda_cli.models.model import Model
from yoda_cli.upscaling.checks import check_options, scale_for, with_scale
from yoda_cli.upscaling.forecast import check_memory, check_pixels, way_of
from yoda_cli.upscaling.picture import Item, estimate_denoise, visible_colors
from yoda_cli.upscaling.pipeline import get_model, plan_picture, upscale_tensor
from yoda_cli.upscaling.provenance import provenance
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer, Result
from yoda_cli.upscaling.settings import Settings

Input = str | Path | bytes | Image.Image | npt.NDArray[np.uint8] | Tensor
#: Told of every finished tile: how many are done, and how many there are to do.
Progress = Callable[[int, int], None]
#: The options that decide how a network is loaded.
LOADING = (
    "model", "device", "precision", "exact", "attention", "heads", "task", "stage1", "compile",
    "faces", "refine", "where", "adaptive", "regressor",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Upscaled:
    """An enlarged picture, and how it came about.

    ``tensor`` is (1, 3, H, W) in [0, 1] on the CPU. ``record`` holds what ``--json`` says:
    settings, tiles, seconds. ``mark`` is what a saved file says of how it was made.
    """

    tensor: Tensor
    record: Mapping[str, Any]
    metadata: Metadata = field(default_factory=Metadata, repr=False)
    mark: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8."""
        levels = (self.tensor[0].float().clamp(0, 1) * 255 + 0.5).floor().byte()
        return levels.permute(1, 2, 0).numpy()

    @property
    def image(self) -> Image.Image:
        """A Pillow picture, RGB."""
        return Image.fromarray(self.array)

    def save(self, path: str | os.PathLike[str], *, quality: int | None = None) -> Path:
        """Write a file of the format that its name says, with the source's metadata.

        ``quality`` 1 … 100 is that of JPEG, WebP and AVIF, 95 if None. An existing file is
        replaced. Raises OutputError.
        """
        target = Path(path)
        kind = format_of(target)
        picture = Picture(self.tensor, metadata=self.metadata)
        write_picture(target, picture, kind=kind, quality=quality, provenance=self.mark)
        return target

    def __repr__(self) -> str:
        height, width = self.tensor.shape[-2:]
        seconds = self.record["seconds"]
        return f"Upscaled({width}×{height}, model={self.record['model']!r}, {seconds:.1f} s)"

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        file = BytesIO()
        self.image.save(file, "PNG")
        return file.getvalue()


def upscale(
    image: Input,
    options: UpscaleOptions | None = None,
    *,
    progress: Progress | None = None,
    **changes: Unpack[OptionValues],
) -> Upscaled:
    """Enlarge a picture: a path, a file's bytes, a Pillow image, (H, W, 3) uint8 or a tensor
    (1, 3, H, W) in [0, 1].

    ``changes`` are fields of ``options``; ``progress(done, total)`` is told of every tile.
    Transparency is not kept; the command line keeps it.
    """
    options = changed(options or UpscaleOptions(), changes)
    return enlarge(image, _ready(options), options, progress)


def attention_map(
    image: Input, options: UpscaleOptions | None = None, **changes: Unpack[OptionValues]
) -> Tensor:
    """A (1, 1, H, W) in [0, 1] on the picture's own grid: where diffusion would work first."""
    options = changed(options or UpscaleOptions(), changes)
    model = _ready(options)
    lr, _, settings = _settled(image, model, options)
    return plan_picture(lr, model, settings).attention


class Upscaler:
    """A network that stays loaded for many pictures; calling it enlarges one.

    ``changes`` are fields of ``UpscaleOptions``. Those that decide how the network is loaded are
    settled here; the others may be given with each picture too. Threads may share an Upscaler:
    they take turns.
    """

    def __init__(self, model: str | None = None, /, **changes: Unpack[OptionValues]) -> None:
        options = changed(UpscaleOptions(), changes)
        self.options = options if model is None else replace(options, model=model)
        check_options(self.options)
        self._model = get_model(self.options)
        self._turn = threading.Lock()

    def __call__(
        self, image: Input, *, progress: Progress | None = None, **changes: Unpack[OptionValues]
    ) -> Upscaled:
        """Enlarge a picture."""
        for name in LOADING:
            if name in changes:
                raise UsageError(f"{name} is settled when an Upscaler is made, not for a picture")
        options = changed(self.options, changes)
        check_options(options)
        with self._turn:
            return enlarge(image, self._model, options, progress)


def changed(options: UpscaleOptions, changes: OptionValues) -> UpscaleOptions:
    """Options with keyword arguments in their places; ``denoise`` may be a word of the command
    line. UsageError where it is none."""
    values: dict[str, Any] = dict(changes)
    if isinstance(word := values.get("denoise"), str):
        try:
            values["denoise"] = parse_denoise(word)
        except ValueError as error:
            raise UsageError(str(error)) from None
    return replace(options, **values)


@lru_cache(maxsize=2)
def _model(options: UpscaleOptions) -> Model:
    return get_model(options)


def _ready(options: UpscaleOptions) -> Model:
    """The model, kept for the next call; only what decides how it is loaded counts."""
    check_options(options)
    return _model(UpscaleOptions(**{name: getattr(options, name) for name in LOADING}))


def enlarge(
    image: Input, model: Model, options: UpscaleOptions, progress: Progress | None
) -> Upscaled:
    """Enlarge a picture with a network that is loaded already.

    Raises InputError for a result beyond ``max_pixels``, DeviceError where memory will not do.
    """
    if isinstance(image, (str, Path, bytes)):
        header = peek(_source(image))
        check_result((header.width, header.height), model, options)
    lr, picture, settings = _settled(image, model, options)
    check_result((int(lr.shape[-1]), int(lr.shape[-2])), model, options)
    result = upscale_tensor(lr, model, settings, _observer(progress))
    mark = provenance(model, settings)
    record = _record(result, model, settings) | {"notices": list(picture.notices)}
    return Upscaled(result.image, record, picture.metadata, mark)


def check_result(size: tuple[int, int], model: Model, options: UpscaleOptions) -> None:
    """Refuse a result that is too large, from the size of the picture alone."""
    asked = scale_for(options, *size, model.scale)
    scale, way = float(model.scale) if asked is None else asked, way_of(model)
    check_pixels("the picture", size, scale, way, options.max_pixels)
    check_memory(Item(Path("the picture"), Path(), "PNG", *size), scale, way)


def _observer(progress: Progress | None) -> Observer | None:
    """What tells ``progress`` of planned and finished tiles."""
    if progress is None:
        return None
    done = total = 0

    def plan(calls: int, seconds: float) -> None:
        nonlocal total
        total = done + calls

    def finish() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    return Observer(on_plan=plan, on_call=finish)


def _record(result: Result, model: Model, settings: Settings) -> dict[str, Any]:
    """How a picture came about, in the words of ``--json``."""
    height, width = result.image.shape[-2:]
    return {
        "model": model.name,
        "width": int(width),
        "height": int(height),
        "seed": settings.sampling.seed,
        "denoise": settings.sampling.strength,
        "fidelity": settings.sampling.fidelity,
        "planned_calls": result.planned_calls,
        "calls": result.calls,
        "dense_calls": result.dense_calls,
        "lower_bound": result.lower_bound,
        "forecast_seconds": round(result.forecast_seconds, 3),
        "seconds": round(result.seconds, 3),
        "device": str(model.device),
        "precision": str(model.precision).removeprefix("torch."),
    }


def _settled(
    image: Input, model: Model, options: UpscaleOptions
) -> tuple[Tensor, Picture, Settings]:
    """The LR tensor, its picture with what its file carried, and the options resolved for it."""
    if isinstance(image, (str, Path, bytes)):
        picture = read_picture(_source(image), accept_damaged=options.accept_damaged)
    else:
        picture = Picture(_tensor(image))
    lr = visible_colors(picture)
    options, _ = estimate_denoise(lr, model, options)
    height, width = lr.shape[-2:]
    options = with_scale(options, scale_for(options, width, height, model.scale))
    return lr, picture, resolve(options, model)


def _source(image: str | Path | bytes) -> Path | bytes:
    return image if isinstance(image, bytes) else Path(image)


def _tensor(image: Image.Image | npt.NDArray[np.uint8] | Tensor) -> Tensor:
    """(1, 3, H, W) float32; ValueError for another shape, TypeError for another type."""
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an array must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
        return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    if not isinstance(image, Tensor):
        raise TypeError(f"{type(image).__name__} is no picture")
    if image.ndim != 4 or image.shape[:2] != (1, 3) or 0 in image.shape:
        raise ValueError(f"a tensor must be (1, 3, H, W), not {tuple(image.shape)}")
    return image.float()
