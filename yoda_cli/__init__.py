"""yoda: masked diffusion super-resolution. Importing this package imports nothing heavy;
the first name that works on pictures brings torch.

import yoda_cli
yoda_cli.upscale("photo.png", scale=2).save("large.png")
larger = yoda_cli.Upscaler("face")                   # keeps its network for many pictures
attention = yoda_cli.attention_map("photo.png")      # (1, 1, h, w) in [0, 1]

Keyword arguments are the fields of ``UpscaleOptions``. What goes wrong is a ``YodaError``.
"""

# Nothing is imported here until it is asked for: a Ctrl-C of the first moment finds the command's
# own handler, which ``__main__`` sets first of all.
TYPE_CHECKING = False  # what a type checker takes for True; ``typing`` itself is slow
if TYPE_CHECKING:
    from yoda_cli.config import UpscaleOptions
    from yoda_cli.errors import (
        DeviceError,
        InputError,
        NotFoundError,
        OutputError,
        UsageError,
        WeightsError,
        YodaError,
    )
    from yoda_cli.upscaling.api import Upscaler, attention_map, upscale
    from yoda_cli.version import __version__

__all__ = [
    "DeviceError",
    "InputError",
    "NotFoundError",
    "OutputError",
    "UpscaleOptions",
    "Upscaler",
    "UsageError",
    "WeightsError",
    "YodaError",
    "__version__",
    "attention_map",
    "upscale",
]

_HOMES = {
    "upscale": "upscaling.api", "attention_map": "upscaling.api", "Upscaler": "upscaling.api",
    "UpscaleOptions": "config", "__version__": "version",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
