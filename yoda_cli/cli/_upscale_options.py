"""The command line of ``yoda upscale``: what ``--help`` shows, and all of it as one record.

``--help`` shows the options made by ``shown``; ``--help-all`` also those made by ``further``, most
of which stand in ``_upscale_further``.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from yoda_cli.cli import _log, _names, _options
from yoda_cli.cli import _upscale_further as f
from yoda_cli.cli._options import WEIGHTS, alias, further, shown
from yoda_cli.cli._upscale_further import FOLDERS, LOOK
from yoda_cli.config import STRENGTHS

WHAT, OUTPUT = "What", "Output"


class What(NamedTuple):
    """What is made of what."""

    output: Annotated[
        Path | None,
        shown(WHAT, "File, folder, - (default: beside the input).", "-o", "--output", value="PATH"),
    ] = None
    scale: Annotated[
        str | None,
        shown(WHAT, "Times larger, at most 16 (default: 4).", "-s", "--scale", value="N"),
    ] = None
    width: Annotated[
        int | None, shown(WHAT, "Or in pixels; also --height, --short-side.", value="N")
    ] = None
    model: Annotated[
        str,
        shown(
            WHAT, "general, face, photo, a file (default: general).", "-m", "--model",
            value="NAME", names=_names.complete_models,
        ),
    ] = "general"  # fmt: skip
    format: Annotated[
        str | None,
        shown(WHAT, "png, jpg, webp, tif, bmp, avif or gif.", value="NAME", names=_names.FORMATS),
    ] = None
    quality: Annotated[int | None, shown(WHAT, "Of JPEG, WebP, AVIF (default: 95).", value="N")] = (
        None
    )


class Look(NamedTuple):
    """How it looks."""

    denoise: Annotated[
        str,
        shown(
            LOOK, "auto, none, light, strong or 0 … 1 (default: auto).", value="HOW",
            names=("auto", *STRENGTHS),
        ),
    ] = "auto"  # fmt: skip
    fidelity: Annotated[
        float | None, shown(LOOK, "0: most detail … 1: smoothest (default: 0.188).", value="F")
    ] = None
    seed: Annotated[
        int, shown(LOOK, "Another number, other fine detail (default: 0).", value="N")
    ] = 0
    steps: Annotated[int | None, shown(LOOK, "Diffusion steps (default: 2).", value="N")] = None


class Folders(NamedTuple):
    """Many pictures."""

    recursive: Annotated[
        bool, shown(FOLDERS, "Enter folders in folders too.", "-r", "--recursive")
    ] = False
    jobs: Annotated[
        int, shown(FOLDERS, "Pictures at a time (default: 1).", "-j", "--jobs", value="N")
    ] = 1
    skip_existing: Annotated[
        bool, shown(FOLDERS, "Keep results that are up to date.", "--skip-existing")
    ] = False
    overwrite: Annotated[
        bool, shown(FOLDERS, "Replace files that yoda did not make.", "--overwrite")
    ] = False
    dry_run: Annotated[
        bool, shown(FOLDERS, "Say what would be made, and how long.", "--dry-run")
    ] = False


class Talk(NamedTuple):
    """What is said, and to whom. ``verbose`` acts as soon as it is read; its field says nothing."""

    quiet: Annotated[bool, shown(OUTPUT, "Say only what went wrong.", "-q", "--quiet")] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "-v", "--verbose", callback=_options.say_more, expose_value=False,
            help="Say more: tiles, network calls.", rich_help_panel=OUTPUT, metavar=" ",
        ),
    ] = False  # fmt: skip
    json_lines: Annotated[bool, shown(OUTPUT, "Print one JSON object per input.", "--json")] = False
    no_progress: Annotated[bool, further(OUTPUT, "Show no progress bar.", "--no-progress")] = False


class AtOnce(NamedTuple):
    """Options that act as soon as they are read; what these fields hold says nothing."""

    log_file: Annotated[
        Path | None,
        typer.Option(
            "--log-file", callback=_log.keep_log, expose_value=False, metavar="FILE",
            hidden=True, help="Write what is said to a file too.", rich_help_panel=OUTPUT,
        ),
    ] = None  # fmt: skip
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", callback=_options.go_offline, hidden=True, metavar=" ",
            help="Never use the network.", rich_help_panel=WEIGHTS,
        ),
    ] = False  # fmt: skip
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            "--cache-dir", callback=_options.set_cache, hidden=True, metavar="DIR",
            help="Folder of downloaded weights.", rich_help_panel=WEIGHTS,
        ),
    ] = None  # fmt: skip
    registry: Annotated[
        Path | None,
        typer.Option(
            "--registry", callback=_options.add_registry, hidden=True, metavar="FILE",
            help="A weights.toml of your own, added.", rich_help_panel=WEIGHTS,
        ),
    ] = None  # fmt: skip
    help: Annotated[
        bool,
        typer.Option(
            "-h", "--help", callback=_options.show_help, is_eager=True, expose_value=False,
            help="Show this page.", rich_help_panel=OUTPUT, metavar=" ",
        ),
    ] = False  # fmt: skip
    help_all: Annotated[
        bool,
        typer.Option(
            "--help-all", callback=_options.show_all, is_eager=True, expose_value=False,
            help="Show all the other options too.", rich_help_panel=OUTPUT, metavar=" ",
        ),
    ] = False  # fmt: skip


class Aliases(NamedTuple):
    """Spellings that other programs taught people's fingers."""

    alias_input: Annotated[list[Path] | None, alias("-i", "--input")] = None
    alias_model: Annotated[str | None, alias("-n", "--model-name")] = None
    alias_format: Annotated[str | None, alias("-f")] = None


class UpscaleArguments(NamedTuple):
    """All that a person may say, in the order of the help."""

    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PICTURES", hidden=True, help="Described with the command."),
    ] = None
    what: What = What()
    look: Look = Look()
    folders: Folders = Folders()
    yes: Annotated[bool, further(WEIGHTS, "Download gigabytes without asking.", "-y", "--yes")] = (
        False
    )
    sizes: f.Sizes = f.Sizes()
    diffusion: f.Diffusion = f.Diffusion()
    deciding: f.Deciding = f.Deciding()
    beside: f.Beside = f.Beside()
    work: f.Work = f.Work()
    latent: f.Latent = f.Latent()
    naming: f.Naming = f.Naming()
    machines: f.Machines = f.Machines()
    inside: f.LookInside = f.LookInside()
    talk: Talk = Talk()
    at_once: AtOnce = AtOnce()
    aliases: Aliases = Aliases()
