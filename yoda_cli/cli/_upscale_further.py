"""The options of ``yoda upscale`` that only ``--help-all`` shows, by their concern."""

from pathlib import Path
from typing import Annotated, NamedTuple

from yoda_cli.cli import _names
from yoda_cli.cli._options import further, shown
from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.upscaling.checks import TASK_NAMES

LOOK, FOLDERS = "How it looks", "Folders"
SIZES, WHERE, WORK = "Other sizes", "Where diffusion works", "Speed and memory"
LATENT, NAMING, MACHINES = "Models that restore first (photo)", "Names, metadata", "Machines"
INSIDE, DECIDES = "A look inside", "Deciding on the way"


class Sizes(NamedTuple):
    """Sizes asked for in other ways."""

    height: Annotated[int | None, further(SIZES, "Height in pixels.", value="N")] = None
    short_side: Annotated[int | None, further(SIZES, "The shorter side in pixels.", value="N")] = (
        None
    )
    min_size: Annotated[
        int | None,
        further(SIZES, "4 times larger, or more so that both sides have N pixels.", value="N"),
    ] = None


class Diffusion(NamedTuple):
    """Where diffusion works, and how."""

    attention: Annotated[
        str | None,
        further(
            WHERE, f"{', '.join(_names.SOURCES)}, or a grey picture (default: learned).",
            "--attention", "--source", value="NAME", names=_names.SOURCES,
        ),
    ] = None  # fmt: skip
    heads: Annotated[
        str | None,
        further(WHERE, "Head of a DINO source: 0 … 5, avg or max (default: max).", value="N"),
    ] = None
    lower_bound: Annotated[
        float | None,
        further(
            WHERE, "How much detail calm areas get: above 0, at most 1 (default: 0.3).", value="L"
        ),
    ] = None
    budget: Annotated[
        float | None,
        further(
            WHERE, "Spend at most this share of the full time, such as 0.5; more is skipped.",
            value="SHARE",
        ),
    ] = None  # fmt: skip
    sampler: Annotated[
        str | None,
        further(
            WHERE, f"{', '.join(SAMPLERS)} (default: ddim).", value="NAME",
            names=SAMPLERS,
        ),
    ] = None  # fmt: skip
    faithful: Annotated[
        bool, further(WHERE, "Run the paper's equations 9 and 11 as printed.", "--faithful")
    ] = False


class Deciding(NamedTuple):
    """How far each region leaps, decided from step to step."""

    adaptive: Annotated[
        bool,
        further(DECIDES, "Let each region decide from step to step how far to leap.", "--adaptive"),
    ] = False
    tau: Annotated[
        float | None,
        further(DECIDES, "The least gain of a step that counts (default: 0.02).", value="GAIN"),
    ] = None
    leaps: Annotated[
        str | None,
        further(
            DECIDES, "Leaps in thousandths of the chain (default: 1, 2, 3 or 4 steps).",
            value="A,B,…",
        ),
    ] = None  # fmt: skip
    regressor: Annotated[
        str | None,
        further(DECIDES, "The network that judges the steps (default: the model's).", value="FILE"),
    ] = None


class Beside(NamedTuple):
    """A second network beside the model's."""

    faces: Annotated[bool, shown(LOOK, "Enlarge faces in it with the model face.", "--faces")] = (
        False
    )
    refine: Annotated[
        bool,
        further(WHERE, "Diffuse on top of a network of one call, such as Real-ESRGAN.", "--refine"),
    ] = False
    where: Annotated[
        str | None,
        further(
            WHERE, "Another model, taken where the attention map is bright.", value="MODEL",
            names=_names.complete_models,
        ),
    ] = None  # fmt: skip


class Work(NamedTuple):
    """Speed, memory and their limits."""

    device: Annotated[
        str, further(WORK, "auto, cpu, cuda, cuda:N or mps (default: auto).", value="NAME",
                     names=_names.DEVICES),
    ] = "auto"  # fmt: skip
    precision: Annotated[
        str,
        further(
            WORK, "auto, fp32, bf16 or fp16 (default: auto, the fastest here).", value="NAME",
            names=_names.PRECISIONS,
        ),
    ] = "auto"  # fmt: skip
    runtime: Annotated[
        str,
        further(WORK, "auto, torch or ncnn (default: auto).", value="NAME", names=_names.RUNTIMES),
    ] = "auto"
    tile: Annotated[
        str,
        further(
            WORK, "Side of a tile in output pixels, or 0 for a single one (default: auto).",
            "-t", "--tile", value="N",
        ),
    ] = "auto"  # fmt: skip
    tile_overlap: Annotated[
        int | None, further(WORK, "Output pixels that a tile sees around itself.", value="N")
    ] = None
    block: Annotated[
        str,
        further(
            WORK, "Side of the blocks that large pictures are made in, or 0 (default: auto).",
            value="N",
        ),
    ] = "auto"  # fmt: skip
    max_pixels: Annotated[
        str, further(WORK, "Largest result; k, M or G may follow (default: 500M).", value="N")
    ] = "500M"
    accept_damaged: Annotated[
        bool, further(FOLDERS, "Enlarge what is left of damaged files.", "--accept-damaged")
    ] = False
    batch: Annotated[
        int | None,
        further(WORK, "Tiles, or small pictures, taken together.", "-b", "--batch", value="N"),
    ] = None
    compile: Annotated[
        bool, further(WORK, "Have torch compile the network first: for long runs.", "--compile")
    ] = False
    stream: Annotated[
        bool | None,
        further(
            WORK, "Write very large pictures block by block (default: from 96 megapixels on).",
            "--stream/--no-stream",
        ),
    ] = None  # fmt: skip
    exact: Annotated[
        bool,
        further(WORK, "Give the same bytes whatever is skipped and however many jobs.", "--exact"),
    ] = False
    skip: Annotated[
        bool,
        further(WORK, "Skip tiles that need no work: the same result.", "--skip/--no-skip"),
    ] = True


class Latent(NamedTuple):
    """For models that restore first."""

    task: Annotated[
        str | None,
        further(LATENT, "sr, face or denoise (default: sr).", value="NAME", names=TASK_NAMES),
    ] = None
    prompt: Annotated[
        str | None,
        further(LATENT, "What is in the picture (default: the model's).", value="TEXT"),
    ] = None
    negative_prompt: Annotated[
        str | None, further(LATENT, "What should not be (default: the model's).", value="TEXT")
    ] = None
    cfg: Annotated[
        float | None,
        further(
            LATENT, "How much the prompts count; 1: nothing (default: the model's).", value="X"
        ),
    ] = None
    strength: Annotated[
        float | None,
        further(LATENT, "How much the restored picture counts, 0 … 2 (default: 1).", value="X"),
    ] = None
    stage1: Annotated[
        str | None,
        further(LATENT, "The restorer that goes first: a name, a file, or none.", value="NAME"),
    ] = None
    attention_from: Annotated[
        str | None,
        further(
            LATENT, "Look at the restored picture, stage1 (default), or at the input, lr.",
            value="NAME", names=("stage1", "lr"),
        ),
    ] = None  # fmt: skip


class Naming(NamedTuple):
    """How results are named, and what they carry."""

    suffix: Annotated[
        str,
        further(NAMING, "Put after the input's name (default: model and factor).", value="TEXT"),
    ] = ""
    name_template: Annotated[
        str | None,
        further(NAMING, "Name with {stem}, {model}, {size}, {scale}, {seed} in it.", value="TEXT"),
    ] = None
    fail_existing: Annotated[
        bool, further(NAMING, "Replace nothing at all.", "--fail-existing")
    ] = False
    strip_metadata: Annotated[
        bool, further(NAMING, "Keep only pixels and colour profile.", "--strip-metadata")
    ] = False


class Machines(NamedTuple):
    """Lists of pictures, shares of them, clusters."""

    files_from: Annotated[
        Path | None, further(MACHINES, "Read the pictures' names from a file.", value="FILE")
    ] = None
    shard: Annotated[
        str | None,
        further(
            MACHINES, "Make every N-th picture from the I-th; auto asks RANK or SLURM.", value="I/N"
        ),
    ] = None
    engine: Annotated[
        str,
        further(MACHINES, "local or ray (default: local).", value="NAME", names=_names.ENGINES),
    ] = "local"
    address: Annotated[str | None, further(MACHINES, "Of a Ray cluster.", value="ADDRESS")] = None
    fail_fast: Annotated[bool, further(MACHINES, "Stop at the first failure.", "--fail-fast")] = (
        False
    )


class LookInside(NamedTuple):
    """What is kept of how a picture came about."""

    dump: Annotated[
        Path | None,
        further(INSIDE, "Write the map, the masks and every step as pictures.", value="DIR"),
    ] = None
    save_attention: Annotated[
        bool, further(INSIDE, "Dump the map (all if none is named).", "--save-attention")
    ] = False
    save_masks: Annotated[bool, further(INSIDE, "Dump every mask.", "--save-masks")] = False
    save_steps: Annotated[
        bool, further(INSIDE, "Dump every state and estimate.", "--save-steps")
    ] = False
    every: Annotated[
        int, further(INSIDE, "Dump every N-th step, and the last (default: 1).", value="N")
    ] = 1
    report: Annotated[
        Path | None, further(INSIDE, "Write one HTML page about the run.", value="FILE")
    ] = None
