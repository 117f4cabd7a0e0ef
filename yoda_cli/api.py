"""The package's face for Python: three names, whose torch is imported when they are called."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from yoda_cli.config import OptionValues, UpscaleOptions
from yoda_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from yoda_cli.upscaling.api import Input, Progress, Upscaled


def upscale(
    image: Input,
    options: UpscaleOptions | None = None,
    *,
    progress: Progress | None = None,
    **changes: Unpack[OptionValues],
) -> Upscaled:
    """Enlarge a picture: a path, a file's bytes, a Pillow image, (H, W, 3) uint8, or a tensor
    (1, 3, H, W) in [0, 1].

    ``changes`` are fields of ``options``; ``progress(done, total)`` is told of every tile.
    """
    from yoda_cli.upscaling import api

    return api.upscale(image, options, progress=progress, **changes)


def attention_map(
    image: Input, options: UpscaleOptions | None = None, **changes: Unpack[OptionValues]
) -> Tensor:
    """Where diffusion would work first: (1, 1, H, W) in [0, 1] on the picture's own grid."""
    from yoda_cli.upscaling import api

    return api.attention_map(image, options, **changes)


class Upscaler:
    """A network that stays loaded for many pictures; calling it enlarges one.

    ``changes`` are fields of ``UpscaleOptions``. Those that decide how the network is loaded are
    settled here; the others may be given with each picture too. Threads may share an Upscaler:
    they take turns.
    """

    def __init__(self, model: str | None = None, /, **changes: Unpack[OptionValues]) -> None:
        from yoda_cli.upscaling import api

        options = UpscaleOptions(**changes)
        self.options = options if model is None else replace(options, model=model)
        self._model = api.load(self.options)
        self._turn = threading.Lock()

    def __call__(
        self, image: Input, *, progress: Progress | None = None, **changes: Unpack[OptionValues]
    ) -> Upscaled:
        """Enlarge a picture."""
        from yoda_cli.upscaling import api

        for name in api.LOADING:
            if name in changes:
                raise UsageError(f"{name} is settled when an Upscaler is made, not for a picture")
        options = replace(self.options, **changes)
        with self._turn:
            return api.enlarge(image, self._model, options, progress)
