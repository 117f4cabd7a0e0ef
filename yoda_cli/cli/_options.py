"""Options that several commands share, and the words that they are read from.

Options about weights become environment variables; they hold for the one run:
``yoda_cli.cli.run`` puts the environment back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from yoda_cli.cli import _names, _render
from yoda_cli.config import parse_denoise as denoise_of
from yoda_cli.errors import UsageError

WEIGHTS = "Weights"


def go_offline(asked: bool) -> None:
    if asked:
        os.environ["YODA_OFFLINE"] = "1"


def set_cache(folder: Path | None) -> None:
    if folder is not None:
        os.environ["YODA_CACHE_DIR"] = str(folder)


def add_registry(path: Path | None) -> None:
    if path is not None:
        others = os.environ.get("YODA_REGISTRY", "")
        os.environ["YODA_REGISTRY"] = os.pathsep.join(filter(None, [others, str(path)]))


def say_more(asked: bool) -> None:
    _render.VERBOSE = asked


def show_help(ctx: typer.Context, asked: bool) -> None:
    """The help, as the parser's own option would show it."""
    if asked:
        typer.echo(ctx.get_help())
        raise typer.Exit


def show_all(ctx: typer.Context, asked: bool) -> None:
    """The help with the options that ``--help`` leaves out; not the aliases."""
    if not asked:
        return
    for parameter in ctx.command.params:
        is_option = parameter.param_type_name == "option"
        if is_option and not (parameter.name or "").startswith("alias_"):
            parameter.hidden = False  # type: ignore[attr-defined]
    typer.echo(ctx.get_help())
    raise typer.Exit


def shown(
    panel: str,
    help: str,
    *flags: str,
    value: str = " ",
    names: Sequence[str] | Callable[[str], Any] = (),
) -> Any:
    """An option with its group, its help, the word for its value and what completes it.

    ``value`` is blank for a flag.
    """
    complete = names if callable(names) else _names.among(names) if names else None
    return typer.Option(
        *flags, help=help, rich_help_panel=panel, metavar=value, show_default=False,
        autocompletion=complete,
    )  # fmt: skip


def further(panel: str, help: str, *flags: str, **more: Any) -> Any:
    """An option that only ``--help-all`` shows."""
    option = shown(panel, help, *flags, **more)
    option.hidden = True
    return option


def alias(*flags: str) -> Any:
    """A spelling that other programs taught people's fingers; no help shows it."""
    return typer.Option(*flags, hidden=True)


Offline = Annotated[
    bool,
    typer.Option(
        "--offline", callback=go_offline, help="Never use the network.", rich_help_panel=WEIGHTS
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir", callback=set_cache, metavar="DIR", help="Folder of downloaded weights.",
        rich_help_panel=WEIGHTS,
    ),
]  # fmt: skip
RegistryFile = Annotated[
    Path | None,
    typer.Option(
        "--registry", callback=add_registry, metavar="FILE",
        help="A weights.toml of your own, added.", rich_help_panel=WEIGHTS,
    ),
]  # fmt: skip


class Places(NamedTuple):
    """Where weights are looked for. They act as soon as they are read, not by these fields."""

    offline: Offline = False
    cache_dir: CacheDir = None
    registry: RegistryFile = None


Yes = Annotated[
    bool, typer.Option("-y", "--yes", help="Download gigabytes without asking.",
                       rich_help_panel=WEIGHTS)
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Inputs = Annotated[list[Path], typer.Argument(help="Pictures.", show_default=False)]
Source = Annotated[
    str | None,
    typer.Option(
        "--attention", "--source", metavar="NAME", autocompletion=_names.among(_names.SOURCES),
        help=f"{', '.join(_names.SOURCES)}, or a grey picture (default: the model's own).",
    ),
]  # fmt: skip
Heads = Annotated[
    str | None,
    typer.Option(metavar="N", help="Head of a DINO source: 0 … 5, avg or max (default: max)."),
]
ModelName = Annotated[
    str,
    typer.Option(
        "-m", "--model", metavar="NAME", show_default=False,
        autocompletion=_names.complete_models,
        help="Model name or checkpoint file (default: general).",
    ),
]  # fmt: skip
LowerBound = Annotated[
    float | None,
    typer.Option(
        metavar="L", help="How much detail calm areas get: above 0, at most 1 (default: 0.3)."
    ),
]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Diffusion steps (default: 2).")]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME", show_default=False, autocompletion=_names.among(_names.DEVICES),
        help="auto, cpu, cuda, cuda:N or mps (default: auto).",
    ),
]  # fmt: skip
Precision = Annotated[
    str,
    typer.Option(
        metavar="NAME", show_default=False, autocompletion=_names.among(_names.PRECISIONS),
        help="auto, fp32, bf16 or fp16 (default: auto).",
    ),
]  # fmt: skip
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that yoda did not make.")
]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object per input.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say only what went wrong.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", callback=say_more, expose_value=False,
        help="Say more: tiles, network calls, precision.",
    ),
]  # fmt: skip
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bar.")]
MetricNames = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", metavar="NAME", autocompletion=_names.among(_names.METRICS),
        help="Repeatable; also lpips-alex, dists, …",
    ),
]  # fmt: skip
Channel = Annotated[str, typer.Option(metavar="NAME", help="PSNR and SSIM on y or rgb.")]


def files_named(*options: str | Path | None) -> list[Path]:
    """Options that may name files, and the registries: read by the command, never written."""
    registries = os.environ.get("YODA_REGISTRY", "").split(os.pathsep)
    return [Path(option) for option in (*options, *registries) if option]


def parse_denoise(text: str) -> float | None:
    """``auto`` is None; a word or a number from 0 to 1."""
    try:
        return denoise_of(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def parse_scale(text: str | None) -> float | None:
    """``4``, ``2.5``, ``4x`` or ``x4``; None is the model's own."""
    if text is None:
        return None
    try:
        return float(text.strip().lower().removeprefix("x").removesuffix("x"))
    except ValueError:
        raise UsageError(
            f"scale {text!r} is not allowed; give a number such as 2, 3 or 4"
        ) from None


def parse_leaps(text: str | None) -> tuple[float, ...] | None:
    """``5,10,15,20``; None is the rule's own."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"leaps {text!r} are not allowed; give thousandths such as 5,10,15,20"
        ) from None


PIXELS = re.compile(r"(\d+(?:\.\d+)?)([kMG]?)", re.ASCII)
LARGEST = 1 << 62  # no file and no memory has so many pixels


def parse_pixels(text: str) -> int:
    """A number of pixels; k, M and G stand for thousands, millions and billions."""
    found = PIXELS.fullmatch(text)
    count = float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]] if found else 0.0
    if not 1 <= count < LARGEST:
        raise UsageError(f"max pixels {text!r} is not allowed; give a number such as 800M or 2G")
    return int(count)


def parse_size(name: str, text: str) -> int | None:
    """``auto`` is None; otherwise output pixels."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdecimal() or float(text) >= LARGEST:
        raise UsageError(f"{name} {text!r} is not allowed; give auto, 0 or a number of pixels")
    return int(text)
