"""Options resolved against a model, once: what a run does, with nothing left to ask.

What decides the pixels is hashed, written into files and printed as a command from here alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from yoda_cli.config import WriteOptions
from yoda_cli.devices.device import precision_name
from yoda_cli.diffusion.samplers import Sampler
from yoda_cli.tiling.plan import TileChoice
from yoda_cli.upscaling.adaptive_settings import AdaptiveSettings
from yoda_cli.upscaling.checks import DIFFUSION_ONLY
from yoda_cli.upscaling.shell import plain_path, shell_word

if TYPE_CHECKING:
    import torch

    from yoda_cli.models.latent.family import Steering


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
    adaptive: AdaptiveSettings | None = None


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
            ("precision", precision_name(self.precision)),
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
        if sampling.adaptive is not None:
            rows += sampling.adaptive.rows()
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
            "adaptive": self.sampling.adaptive is not None,
        }
        return [name for name, is_on in chosen.items() if is_on]

    def command(self, source: Path, target: Path, writing: WriteOptions | None = None) -> str:
        """A line for the shell that makes the same file again, by torch as a watched run is made:
        ncnn, which a run that nobody watches may get, rounds in other places."""
        writing = writing or WriteOptions()
        words = ["yoda", "upscale", plain_path(source), "-o", plain_path(target)]
        of_file = (("runtime", "torch"), ("format", writing.format), ("quality", writing.quality))
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
