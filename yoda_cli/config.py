"""Options as frozen records: one path from a flag or a TOML key to a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

#: Output pixels of the smallest tile: smaller ones spend nearly all time on their halos.
MIN_TILE = 64


@dataclass(frozen=True)
class TrainOptions:
    """How a checkpoint is trained; a recipe's ``[train]`` table.

    Sizes are HR pixels. ``steps`` or ``minutes`` end the run and drive the cosine rate, whichever
    comes first (0: no bound). ``attention`` weighs the sources a crop's map is drawn from;
    ``lower_bound`` and ``constant`` levels are drawn uniformly; ``chains`` are the chain lengths
    whose transitions are trained (0: the full chain). ``degrade`` is the share of damaged crops.
    ``reduce`` are the factors ≥ 1 by which each picture is made smaller before it is cropped: one
    copy of it is held for each, and the first is validated.

    ``masks`` are trained ``on``, or for comparison ``shuffled`` (the map rolled in space) or as
    ``weights`` (no mask; a sample's loss weighs what its mask would cover at that time). The loss
    is divided by the mask's area, or by the whole crop's with ``divide_by = "crop"``.

    ``states`` are made of the truth by the ``forward`` process, one for each crop, or ``sampled``:
    all those of two chains that the network itself runs for each crop. Their loss is the energy
    score, whose two samples should differ as ``spread`` says: 0, not at all; 1, as the truth may;
    and ``texture_weight`` times the distance of the local distributions of patches. Long chains
    train on ``scored`` of their estimates, drawn at random (0: on all), and may leap as
    ``adaptive`` runs do; a network with ``injection`` is told what each step gained. With ``none``
    only the encoder is trained.

    Submodules named in ``frozen`` stay as they are; the convolutions of those named in ``muon`` are
    stepped by Muon at ``muon_rate``, all else by AdamW at ``rate``.
    ``drawings`` drawn pictures (pages, screens, charts) are trained on beside the photographs.
    Each crop is the pick of ``candidates``, by chance in proportion to bicubic's error on them.
    """

    patch: int = 128
    batch: int = 16
    steps: int = 0
    minutes: float = 0.0
    rate: float = 5e-4
    final_rate: float = 0.01
    warmup: int = 200
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.999
    base_weight: float = 3.0
    attention: Mapping[str, float] = field(default_factory=lambda: {"uniform": 1.0})
    lower_bound: tuple[float, float] = (0.05, 0.5)
    chains: tuple[int, ...] = (0,)
    masks: Literal["on", "shuffled", "weights"] = "on"
    divide_by: Literal["mask", "crop"] = "mask"
    states: Literal["forward", "sampled", "none"] = "forward"
    spread: float = 0.0
    texture_weight: float = 0.0
    scored: int = 0
    adaptive: bool = False
    frozen: tuple[str, ...] = ()
    muon: tuple[str, ...] = ()
    muon_rate: float = 0.01
    candidates: int = 1
    degrade: float = 0.0
    reduce: tuple[float, ...] = (1.0,)
    drawings: int = 0
    seed: int = 0
    save_minutes: float = 3.0
    validate_minutes: float = 10.0
    validation_pictures: int = 8
    validation_steps: int = 15

    def __post_init__(self) -> None:
        alone = self.spread or self.scored or self.adaptive or self.texture_weight
        if self.states != "sampled" and alone:
            raise ValueError('spread, scored, adaptive and texture_weight need states = "sampled"')
        if self.states == "sampled" and (self.masks == "weights" or self.divide_by == "crop"):
            raise ValueError('states = "sampled" are trained inside masks, divided by their area')


@dataclass(frozen=True)
class SampleDefaults:
    """How a checkpoint likes to be sampled when nothing is said.

    The fidelity of a damaged picture is at least the strength of its damage times
    ``damaged_fidelity``, in [0, 1].
    """

    attention: str = "learned"
    lower_bound: float = 0.3
    steps: int = 15
    sampler: str = "ddim"
    fidelity: float = 0.0
    damaged_fidelity: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """A network, how it is trained, and how its checkpoints are sampled: all but the data.

    ``then`` names the recipe that goes on from its best checkpoint.
    """

    name: str
    backbone: str
    net: Mapping[str, Any]
    train: TrainOptions
    sample: SampleDefaults
    then: str = ""


MAX_RESULT_PIXELS = 500_000_000  # of a result, where no other bound is asked for


@dataclass(frozen=True)
class UpscaleOptions:
    """What ``yoda upscale`` was asked for; None means the model's own default.

    ``scale`` in (0, 16], or a length of the result in pixels: ``width``, ``height``,
    ``short_side``, or ``min_size``, the least that a short side may have. ``attention`` is a
    source's name or the path of a grey picture, ``heads`` which of its heads (a number, avg or
    max); ``lower_bound`` in (0, 1];
    ``tile`` the core in output pixels, 0 for none, None for automatic; ``fidelity`` in [0, 1], 0
    the full sampled detail, 1 the unrefined (regression) picture; ``denoise`` in [0, 1] is how
    degraded the picture is, None to estimate it from the file.

    ``tile_overlap`` is the halo of a tile, ``block`` the side of an independent block (0: one);
    both in output pixels. ``batch`` windows go through a GPU together; ``compile``
    has torch compile the network first. ``exact`` promises the same
    bytes whatever is skipped and however many workers; ``stream`` writes very large pictures by
    blocks (None: where that pays); ``budget`` in (0, 1] is a share of the time
    that A = 1 takes. ``faces`` restores the faces in a photograph apart, with the model ``face``.
    ``refine`` diffuses on top of a network that makes its picture in one call. ``where`` is another
    model, whose picture is taken the more the brighter the attention map is.

    ``adaptive`` lets each region decide from step to step how far to leap: ``tau`` in (0, 1) is the
    least gain of a step that counts, ``leaps`` are rising thousandths of the chain, ``regressor``
    the file of the network that judges.

    ``max_pixels`` bounds the result, of an animation each frame, and ten times as much all of them.
    ``accept_damaged`` enlarges what can be read of a damaged file.

    The rest is for models that restore and then diffuse latents: ``task`` sr, face or denoise;
    ``stage1`` a restorer's name or file, or none; ``attention_from`` the stage1 picture or the lr;
    ``cfg`` ≥ 0 the scale of classifier-free guidance; ``strength`` in [0, 2] that of the controls.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    short_side: int | None = None
    min_size: int | None = None
    model: str = "general"
    attention: str | None = None
    heads: str | None = None
    lower_bound: float | None = None
    steps: int | None = None
    sampler: str | None = None
    seed: int = 0
    fidelity: float | None = None
    denoise: float | None = None
    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    tile_overlap: int | None = None
    block: int | None = None
    batch: int | None = None
    compile: bool = False
    faithful: bool = False
    skip: bool = True
    exact: bool = False
    stream: bool | None = None
    budget: float | None = None
    adaptive: bool = False
    tau: float | None = None
    leaps: tuple[float, ...] | None = None
    regressor: str | None = None
    faces: bool = False
    refine: bool = False
    where: str | None = None
    task: str | None = None
    stage1: str | None = None
    attention_from: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    cfg: float | None = None
    strength: float | None = None
    max_pixels: int = MAX_RESULT_PIXELS
    accept_damaged: bool = False


class OptionValues(TypedDict, total=False):
    """The fields of UpscaleOptions as keyword arguments; a test keeps the two alike."""

    scale: float | None
    width: int | None
    height: int | None
    short_side: int | None
    min_size: int | None
    model: str
    attention: str | None
    heads: str | None
    lower_bound: float | None
    steps: int | None
    sampler: str | None
    seed: int
    fidelity: float | None
    denoise: float | str | None
    device: str
    precision: str
    tile: int | None
    tile_overlap: int | None
    block: int | None
    batch: int | None
    compile: bool
    faithful: bool
    faces: bool
    refine: bool
    where: str | None
    max_pixels: int
    accept_damaged: bool
    skip: bool
    exact: bool
    stream: bool | None
    budget: float | None
    adaptive: bool
    tau: float | None
    leaps: tuple[float, ...] | None
    regressor: str | None
    task: str | None
    stage1: str | None
    attention_from: str | None
    prompt: str | None
    negative_prompt: str | None
    cfg: float | None
    strength: float | None


#: ``denoise`` in words.
STRENGTHS = {"none": 0.0, "light": 0.3, "strong": 0.7}


def parse_denoise(text: str) -> float | None:
    """``auto`` is None; a word or a number from 0 to 1. ValueError for anything else."""
    if text == "auto":
        return None
    try:
        return STRENGTHS[text] if text in STRENGTHS else float(text)
    except ValueError:
        words = ", ".join(("auto", *STRENGTHS))
        raise ValueError(f"denoise {text!r} is not allowed; give {words} or 0 … 1") from None


@dataclass(frozen=True)
class WriteOptions:
    """How results are written.

    ``quality`` 1 … 100 is that of JPEG, WebP and AVIF; None is 95, and lossless where the input was
    lossless WebP. ``format`` is a suffix without its dot, None the input's own; ``name_template``
    has fields {stem}, {model}, {scale}, {size}, {seed}; ``suffix`` is put after the stem instead.
    ``existing`` says what may happen to a file that stands at the target: one that yoda made is
    replaced, any is, none is, or one that this very run would make is kept.
    """

    existing: Literal["own", "overwrite", "fail", "skip"] = "own"
    quality: int | None = None
    format: str | None = None
    name_template: str | None = None
    suffix: str = ""
    strip_metadata: bool = False
