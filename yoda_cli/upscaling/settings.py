"""Options resolved against a model, once: what a run does, with nothing left to ask.

What decides the pixels is hashed, written into files and printed as a command from here alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.diffusion.samplers import SAMPLERS, Sampler
from yoda_cli.diffusion.timesteps import CHAINS
from yoda_cli.diffusion.yoda import time_mask
from yoda_cli.errors import UsageError
from yoda_cli.models.latent.family import Steering
from yoda_cli.models.model import Model
from yoda_cli.tiling.plan import TileChoice
from yoda_cli.upscaling.checks import DIFFUSION_ONLY, apart, check_model
from yoda_cli.upscaling.shell import plain_path, shell_word

PRECISION_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
GROUP = 8  # windows that go through a GPU together, where nothing is said
LATENT_GROUP = 4  # of latents: each is a whole U-Net of Stable Diffusion
LEARNED, WITHOUT_LEARNED = "learned", "edge"  # the map of a blend where none is asked for
EVEN = "even"  # the spacing of every chain of pixels


@dataclass(frozen=True)
class MaskSettings:
    """Where diffusion works: the source of A (a name or a picture's path), which of its heads (""
    for the source's own choice), l in (0, 1], and the share of the dense time to spend (0: as it
    comes). ``faithful`` runs the paper's equations as printed."""

    source: str
    heads: str
    lower_bound: float
    budget: float
    faithful: bool


@dataclass(frozen=True)
class SamplingSettings:
    """How the chain is run: ``timesteps`` are [T, …, 0].

    ``fidelity`` in [0, 1] draws the result towards the unrefined picture, ``strength`` in [0, 1]
    is the degradation to expect. Both change for further passes, whose picture is clean.
    """

    sampler: Sampler
    timesteps: tuple[int, ...]
    seed: int
    fidelity: float
    strength: float
    fidelity_when_clean: float


@dataclass(frozen=True)
class LatentSettings:
    """What only models of latents read: see ``UpscaleOptions``.

    ``wraps``: fidelity is the decoder's, and diffusion runs whatever it is.
    """

    task: str
    stage1: str  # "" for the task's own restorer
    attention_from: str
    steering: Steering
    wraps: bool = False


@dataclass(frozen=True)
class Blend:
    """Another model's ``settings``, and the map of where its picture is taken, as in a mask."""

    source: str
    heads: str
    settings: Settings


@dataclass(frozen=True)
class Settings:
    """Everything that a run is told. ``group`` windows go through a GPU together; ``faces`` is
    what the model of faces is told, where they are restored apart. ``refine``: the unrefined
    picture is another network's. ``blend`` is there where another model is blended in."""

    model: str
    scale: float
    mask: MaskSettings
    sampling: SamplingSettings
    tiles: TileChoice
    group: int
    compile: bool
    device: torch.device
    precision: torch.dtype
    latent: LatentSettings | None = None
    faces: Settings | None = None
    refine: bool = False
    blend: Blend | None = None

    def for_next_pass(self) -> Settings:
        """The same for a picture that the model made itself."""
        sampling = self.sampling
        fidelity = sampling.fidelity_when_clean
        return replace(self, sampling=replace(sampling, fidelity=fidelity, strength=0.0))

    def with_block(self, block: int) -> Settings:
        """The same, with blocks of that side; 0 keeps the picture in one."""
        return replace(self, tiles=replace(self.tiles, block=block))

    @property
    def refines(self) -> bool:
        """Whether the network is called at all; at fidelity 1 the unrefined picture is kept."""
        return self.sampling.fidelity < 1 or (self.latent is not None and self.latent.wraps)

    @property
    def diffuses(self) -> bool:
        """Whether the chain has more than one step; a network of one call has not."""
        return self.sampling.timesteps[0] > 1

    def rows(self) -> list[tuple[str, object]]:
        """Every setting that decides the pixels, by the name of its option."""
        if self.blend is not None:
            return _rows_of_two(replace(self, blend=None), self.blend)
        sampling, mask, tiles = self.sampling, self.mask, self.tiles
        rows: list[tuple[str, object]] = [
            ("model", self.model),
            ("scale", f"{self.scale:g}" if float(f"{self.scale:g}") == self.scale else self.scale),
            ("attention", mask.source),
            ("lower_bound", mask.lower_bound),
            ("steps", len(sampling.timesteps) - 1),
            ("sampler", sampling.sampler.name),
            ("seed", sampling.seed),
            ("fidelity", sampling.fidelity),
            ("denoise", sampling.strength),
            ("device", self.device),
            ("precision", PRECISION_NAMES[self.precision]),
            ("tile", "auto" if tiles.core is None else tiles.core),
        ]
        asked = {
            "heads": mask.heads or None,
            "budget": mask.budget or None,
            "tile_overlap": tiles.halo,
            "block": tiles.block,
            "batch": self.group if self.group > 1 else None,
        }
        rows += [(name, value) for name, value in asked.items() if value is not None]
        if self.latent is not None:
            rows += _latent_rows(self.latent)
        if not self.diffuses:
            rows = [(name, value) for name, value in rows if name not in DIFFUSION_ONLY]
        return rows

    def switches(self) -> list[str]:
        """Options without a value that decide the pixels."""
        chosen = {
            "exact": self.tiles.exact,
            "faithful": self.mask.faithful,
            "compile": self.compile,
            "no-skip": not self.tiles.skip,
            "faces": self.faces is not None,
            "refine": self.refine,
        }
        return [name for name, is_on in chosen.items() if is_on]

    def command(self, source: Path, target: Path, writing: WriteOptions | None = None) -> str:
        """A line for the shell that makes the same file again."""
        writing = writing or WriteOptions()
        words = ["yoda", "upscale", plain_path(source), "-o", plain_path(target)]
        of_file = (("format", writing.format), ("quality", writing.quality))
        for name, value in (*self.rows(), *of_file):
            if value is not None:
                words += [f"--{name.replace('_', '-')}", str(value)]
        words += [f"--{name}" for name in self.switches()]
        words += ["--strip-metadata"] if writing.strip_metadata else []
        return " ".join(map(shell_word, words))


def _rows_of_two(settings: Settings, blend: Blend) -> list[tuple[str, object]]:
    """Of a blend; fidelity where it is one number: else each model has its own default."""
    other = blend.settings
    first = settings if settings.diffuses or not other.diffuses else other
    told = {"model": settings.model, "where": other.model, "attention": blend.source}
    rows = dict(first.rows()) | told | {"heads": blend.heads}
    if settings.sampling.fidelity != other.sampling.fidelity:
        rows.pop("fidelity")
    return [(name, value) for name, value in rows.items() if value != ""]


def _latent_rows(latent: LatentSettings) -> list[tuple[str, object]]:
    steering = latent.steering
    rows: list[tuple[str, object]] = [
        ("task", latent.task),
        ("cfg", steering.cfg),
        ("prompt", steering.prompt),
        ("negative_prompt", steering.negative_prompt),
        ("strength", steering.strength),
        ("attention_from", latent.attention_from),
    ]
    return rows + ([("stage1", latent.stage1)] if latent.stage1 else [])


def resolve(asked: UpscaleOptions, model: Model) -> Settings:
    """``asked``, whose values can be meant, with the model's own where nothing was said.

    ``asked.scale`` is the picture's own by now, and ``asked.denoise`` a number: what was left to
    estimate counts as a clean picture. UsageError where the two do not fit each other.
    """
    check_model(model, asked)
    if asked.where is not None and model.where is not None:
        return _resolve_two(asked, model, model.where)
    strength = asked.denoise or 0.0
    lower_bound = asked.lower_bound or model.defaults.lower_bound
    total = model.backbone.schedule.num_steps
    if not bool(time_mask(torch.zeros(()), lower_bound, 1, total)):
        raise UsageError(
            f"lower bound {lower_bound:g} is below 1/T = 1/{total}: noise would remain"
        )
    # --faithful needs an ancestral sampler and takes ddpm by default.
    name = asked.sampler or ("ddpm" if asked.faithful else model.defaults.sampler)
    sampling = SamplingSettings(
        SAMPLERS[name],
        _timesteps(asked.steps or model.defaults.steps, SAMPLERS[name], model),
        asked.seed,
        model.fidelity(asked.fidelity, strength),
        strength,
        model.fidelity(asked.fidelity, 0.0),
    )
    mask = MaskSettings(
        asked.attention or model.defaults.attention, asked.heads or "", lower_bound,
        asked.budget or 0.0, asked.faithful,
    )  # fmt: skip
    return Settings(
        asked.model,
        asked.scale if asked.scale is not None else float(model.scale),
        mask,
        sampling,
        TileChoice(asked.tile, asked.tile_overlap, asked.block, asked.exact, asked.skip),
        _group(asked, model),
        asked.compile,
        model.device,
        model.precision,
        _latent(asked, model, sampling.fidelity),
        _faces(asked, model),
        asked.refine,
    )


def _resolve_two(asked: UpscaleOptions, model: Model, other: Model) -> Settings:
    """Two models that are blended: the map is asked for both, all else of each."""
    own = resolve(apart(asked, model), replace(model, where=None))
    told = replace(apart(asked, other), model=str(asked.where), faces=False, scale=own.scale)
    learned = LEARNED in (model.defaults.attention, other.defaults.attention)
    source = asked.attention or (LEARNED if learned else WITHOUT_LEARNED)
    return replace(own, blend=Blend(source, asked.heads or "", resolve(told, other)))


def _faces(asked: UpscaleOptions, model: Model) -> Settings | None:
    """Of the model of faces: its own factor and chain, the fidelity and seed that were asked."""
    if not asked.faces or model.faces is None:
        return None
    helper = model.faces.model
    own = UpscaleOptions(
        model=helper.name, seed=asked.seed, fidelity=asked.fidelity, exact=asked.exact,
        denoise=asked.denoise if helper.can_denoise else 0.0,
    )  # fmt: skip
    return resolve(own, helper)


def _timesteps(steps: int, sampler: Sampler, model: Model) -> tuple[int, ...]:
    spacing = EVEN
    if model.family is not None:  # published chains may end in a long leap
        spacing = sampler.timesteps or model.family.settings.chain
    return tuple(CHAINS[spacing](model.backbone.schedule.num_steps, steps))


def _group(asked: UpscaleOptions, model: Model) -> int:
    """A CPU takes windows one by one: it rounds by the size of the group."""
    if model.device.type == "cpu" or asked.exact:
        return 1
    return asked.batch or (GROUP if model.family is None else LATENT_GROUP)


def _latent(asked: UpscaleOptions, model: Model, fidelity: float) -> LatentSettings | None:
    if model.family is None:
        return None
    own = model.family.settings
    steering = Steering(
        own.prompt if asked.prompt is None else asked.prompt,
        own.negative_prompt if asked.negative_prompt is None else asked.negative_prompt,
        own.cfg if asked.cfg is None else asked.cfg,
        1.0 if asked.strength is None else asked.strength,
        fidelity,
    )
    return LatentSettings(
        asked.task or "sr", asked.stage1 or "", asked.attention_from or "stage1", steering,
        model.family.wraps,
    )  # fmt: skip
