"""The options of ``yoda upscale``: their flags, help and group.

``--help`` shows those made by ``shown``; ``--help-all`` also those made by ``further``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoda_cli.cli import _names, _options
from yoda_cli.cli._options import alias, further, shown
from yoda_cli.upscaling.checks import SAMPLER_NAMES, TASK_NAMES

WHAT, LOOK, FOLDERS, OUTPUT = "What", "How it looks", "Folders", "Output"
SIZES, WHERE, WORK = "Other sizes", "Where diffusion works", "Speed and memory"
LATENT, NAMING, MACHINES = "Models that restore first (photo)", "Names, metadata", "Machines"
INSIDE, WEIGHTS, DECIDES = "A look inside", "Weights", "Deciding on the way"

EPILOG = """\
[bold]Examples[/bold]
  yoda upscale photo.jpg
  yoda upscale photo.jpg -o large.png --width 3000
  yoda upscale old.jpg --denoise strong
  yoda upscale photos/ -r -o enlarged/
"""


Pictures = Annotated[
    list[Path] | None,
    typer.Argument(metavar="PICTURES", hidden=True, help="Described with the command."),
]
AliasInput = Annotated[list[Path] | None, alias("-i", "--input")]
AliasModel = Annotated[str | None, alias("-n", "--model-name")]
AliasFormat = Annotated[str | None, alias("-f")]

Output = Annotated[
    Path | None,
    shown(WHAT, "File, folder, - (default: beside the input).", "-o", "--output", value="PATH"),
]
Scale = Annotated[
    str | None,
    shown(WHAT, "Times larger, at most 16 (default: 4).", "-s", "--scale", value="N"),
]
Width = Annotated[int | None, shown(WHAT, "Or in pixels; also --height, --short-side.", value="N")]
Model = Annotated[
    str,
    shown(
        WHAT, "general, face, photo, a file (default: general).", "-m", "--model",
        value="NAME", names=_names.complete_models,
    ),
]  # fmt: skip
Format = Annotated[
    str | None,
    shown(WHAT, "png, jpg, webp, tif, bmp, avif or gif.", value="NAME", names=_names.FORMATS),
]
Quality = Annotated[int | None, shown(WHAT, "Of JPEG, WebP, AVIF (default: 95).", value="N")]

Denoise = Annotated[
    str,
    shown(
        LOOK, "auto, none, light, strong or 0 … 1 (default: auto).", value="HOW",
        names=("auto", *_names.STRENGTHS),
    ),
]  # fmt: skip
Fidelity = Annotated[
    float | None, shown(LOOK, "0: most detail … 1: smoothest (default: 0.188).", value="F")
]
Seed = Annotated[int, shown(LOOK, "Another number, other fine detail (default: 0).", value="N")]
Steps = Annotated[int | None, shown(LOOK, "Diffusion steps (default: 2).", value="N")]

Recursive = Annotated[bool, shown(FOLDERS, "Enter folders in folders too.", "-r", "--recursive")]
Jobs = Annotated[int, shown(FOLDERS, "Pictures at a time (default: 1).", "-j", "--jobs", value="N")]
SkipExisting = Annotated[
    bool, shown(FOLDERS, "Keep results that are up to date.", "--skip-existing")
]
Overwrite = Annotated[bool, shown(FOLDERS, "Replace files that yoda did not make.", "--overwrite")]
DryRun = Annotated[bool, shown(FOLDERS, "Say what would be made, and how long.", "--dry-run")]

Yes = Annotated[bool, further(WEIGHTS, "Download gigabytes without asking.", "-y", "--yes")]

Height = Annotated[int | None, further(SIZES, "Height in pixels.", value="N")]
ShortSide = Annotated[int | None, further(SIZES, "The shorter side in pixels.", value="N")]
MinSize = Annotated[
    int | None,
    further(SIZES, "4 times larger, or more so that both sides have N pixels.", value="N"),
]

Sampler = Annotated[
    str | None,
    further(
        WHERE, f"{', '.join(SAMPLER_NAMES)} (default: ddim).", value="NAME",
        names=SAMPLER_NAMES,
    ),
]  # fmt: skip
Attention = Annotated[
    str | None,
    further(
        WHERE, f"{', '.join(_names.SOURCES)}, or a grey picture (default: learned).",
        "--attention", "--source", value="NAME", names=_names.SOURCES,
    ),
]  # fmt: skip
Heads = Annotated[
    str | None,
    further(WHERE, "Head of a DINO source: 0 … 5, avg or max (default: max).", value="N"),
]
LowerBound = Annotated[
    float | None,
    further(WHERE, "How much detail calm areas get: above 0, at most 1 (default: 0.3).", value="L"),
]
Budget = Annotated[
    float | None,
    further(
        WHERE, "Spend at most this share of the full time, such as 0.5; more is skipped.",
        value="SHARE",
    ),
]  # fmt: skip
Adaptive = Annotated[
    bool,
    further(DECIDES, "Let each region decide from step to step how far to leap.", "--adaptive"),
]
Tau = Annotated[
    float | None,
    further(DECIDES, "The least gain of a step that counts (default: 0.02).", value="GAIN"),
]
Leaps = Annotated[
    str | None,
    further(
        DECIDES, "Leaps in thousandths of the chain (default: 1, 2, 3 or 4 steps).",
        value="A,B,…",
    ),
]  # fmt: skip
Regressor = Annotated[
    str | None,
    further(DECIDES, "The network that judges the steps (default: the model's).", value="FILE"),
]
Faces = Annotated[bool, shown(LOOK, "Restore the faces in a photograph apart.", "--faces")]
Refine = Annotated[
    bool,
    further(WHERE, "Diffuse on top of a network of one call, such as Real-ESRGAN.", "--refine"),
]
Where = Annotated[
    str | None,
    further(
        WHERE, "Another model, taken where the attention map is bright.", value="MODEL",
        names=_names.complete_models,
    ),
]  # fmt: skip
Faithful = Annotated[
    bool, further(WHERE, "Run the paper's equations 9 and 11 as printed.", "--faithful")
]

Device = Annotated[
    str, further(WORK, "auto, cpu, cuda, cuda:N or mps (default: auto).", value="NAME",
                 names=_names.DEVICES),
]  # fmt: skip
Runtime = Annotated[
    str, further(WORK, "auto, torch or onnx (default: auto).", value="NAME", names=_names.RUNTIMES)
]
Precision = Annotated[
    str,
    further(
        WORK, "auto, fp32, bf16 or fp16 (default: auto, the fastest here).", value="NAME",
        names=_names.PRECISIONS,
    ),
]  # fmt: skip
Tile = Annotated[
    str,
    further(
        WORK, "Side of a tile in output pixels, or 0 for a single one (default: auto).",
        "-t", "--tile", value="N",
    ),
]  # fmt: skip
TileOverlap = Annotated[
    int | None, further(WORK, "Output pixels that a tile sees around itself.", value="N")
]
MaxPixels = Annotated[
    str, further(WORK, "Largest result; k, M or G may follow (default: 500M).", value="N")
]
AcceptDamaged = Annotated[
    bool, further(FOLDERS, "Enlarge what is left of damaged files.", "--accept-damaged")
]
Block = Annotated[
    str,
    further(
        WORK, "Side of the blocks that large pictures are made in, or 0 (default: auto).",
        value="N",
    ),
]  # fmt: skip
Batch = Annotated[
    int | None,
    further(WORK, "Tiles, or small pictures, taken together.", "-b", "--batch", value="N"),
]
Compile = Annotated[
    bool, further(WORK, "Have torch compile the network first: for long runs.", "--compile")
]
Stream = Annotated[
    bool | None,
    further(
        WORK, "Write very large pictures block by block (default: from 96 megapixels on).",
        "--stream/--no-stream",
    ),
]  # fmt: skip
Exact = Annotated[
    bool,
    further(WORK, "Give the same bytes whatever is skipped and however many jobs.", "--exact"),
]
Skip = Annotated[
    bool,
    further(WORK, "Skip tiles that need no work: the same result.", "--skip/--no-skip"),
]

Task = Annotated[
    str | None,
    further(LATENT, "sr, face or denoise (default: sr).", value="NAME", names=TASK_NAMES),
]
Prompt = Annotated[
    str | None,
    further(LATENT, "What is in the picture (default: the model's).", value="TEXT"),
]
NegativePrompt = Annotated[
    str | None, further(LATENT, "What should not be (default: the model's).", value="TEXT")
]
Cfg = Annotated[
    float | None,
    further(LATENT, "How much the prompts count; 1: nothing (default: the model's).", value="X"),
]
Strength = Annotated[
    float | None,
    further(LATENT, "How much the restored picture counts, 0 … 2 (default: 1).", value="X"),
]
Stage1 = Annotated[
    str | None,
    further(LATENT, "The restorer that goes first: a name, a file, or none.", value="NAME"),
]
AttentionFrom = Annotated[
    str | None,
    further(
        LATENT, "Look at the restored picture, stage1 (default), or at the input, lr.",
        value="NAME", names=("stage1", "lr"),
    ),
]  # fmt: skip

Suffix = Annotated[
    str,
    further(NAMING, "Put after the input's name (default: model and factor).", value="TEXT"),
]
NameTemplate = Annotated[
    str | None,
    further(NAMING, "Name with {stem}, {model}, {size}, {scale}, {seed} in it.", value="TEXT"),
]
FailExisting = Annotated[bool, further(NAMING, "Replace nothing at all.", "--fail-existing")]
StripMetadata = Annotated[
    bool, further(NAMING, "Keep only pixels and colour profile.", "--strip-metadata")
]

FilesFrom = Annotated[
    Path | None, further(MACHINES, "Read the pictures' names from a file.", value="FILE")
]
Shard = Annotated[
    str | None,
    further(
        MACHINES, "Make every N-th picture from the I-th; auto asks RANK or SLURM.", value="I/N"
    ),
]
Engine = Annotated[
    str,
    further(MACHINES, "local or ray (default: local).", value="NAME", names=_names.ENGINES),
]
Address = Annotated[str | None, further(MACHINES, "Of a Ray cluster.", value="ADDRESS")]
FailFast = Annotated[bool, further(MACHINES, "Stop at the first failure.", "--fail-fast")]

Dump = Annotated[
    Path | None,
    further(INSIDE, "Write the map, the masks and every step as pictures.", value="DIR"),
]
SaveAttention = Annotated[
    bool, further(INSIDE, "Dump the map (all if none is named).", "--save-attention")
]
SaveMasks = Annotated[bool, further(INSIDE, "Dump every mask.", "--save-masks")]
SaveSteps = Annotated[bool, further(INSIDE, "Dump every state and estimate.", "--save-steps")]
Every = Annotated[
    int, further(INSIDE, "Dump every N-th step, and the last (default: 1).", value="N")
]
Report = Annotated[Path | None, further(INSIDE, "Write one HTML page about the run.", value="FILE")]

Quiet = Annotated[bool, shown(OUTPUT, "Say only what went wrong.", "-q", "--quiet")]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", callback=_options.say_more, expose_value=False,
        help="Say more: tiles, network calls.", rich_help_panel=OUTPUT, metavar=" ",
    ),
]  # fmt: skip
Json = Annotated[bool, shown(OUTPUT, "Print one JSON object per input.", "--json")]
NoProgress = Annotated[bool, further(OUTPUT, "Show no progress bar.", "--no-progress")]
