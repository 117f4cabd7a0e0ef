"""Looking inside a run: A, M(t), z_t and the running ẑ_0 as pictures, and how much was refined.

Everything that is kept is small or goes to disk at once, so a large picture costs no more memory
than its own canvas. Knows no network.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.diffusion.yoda import StepRecord, share
from yoda_cli.errors import OutputError
from yoda_cli.files import make_folder
from yoda_cli.files.overwriting import Outputs, has_mark
from yoda_cli.files.paths import entries_of, is_link
from yoda_cli.images import (
    Animation,
    Picture,
    encode_frames,
    encode_picture,
    made_by_yoda,
    shown,
    write_atomically,
)
from yoda_cli.upscaling.batch.outputs import fitting
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.result import PassBegin
from yoda_cli.version import __version__

PANEL = 384  # longest side of a panel of the animation and of the report's steps, pixels
MAX_FRAMES = 60
FRAME_MILLISECONDS = 160.0
LAST_MILLISECONDS = 1600.0
MADE_BY = {"software": f"yoda {__version__}"}
#: The names of what a dump writes.
DUMPED = re.compile(r"(pass\d+_)?(attention|mask_.*|state_.*|estimate_.*)\.png|"
                    r"process\.webp|steps\.(json|csv)", re.DOTALL)  # fmt: skip


@dataclass(frozen=True)
class StepRow:
    """One transition t → s and the share of the picture that it refined."""

    index: int
    t: int
    s: int
    active_share: float


@dataclass(frozen=True)
class Frame:
    """One transition as three small pictures (3, h, w) uint8: state, estimate, mask.

    ``number`` counts the transitions of all passes.
    """

    row: StepRow
    number: int
    state: Tensor
    estimate: Tensor
    mask: Tensor


def steps_of(seen: PicturePlan) -> list[StepRow]:
    """Every transition of a plan and what it refines, before anything is computed."""
    times = seen.first.timesteps
    return [
        StepRow(i, t, s, share(seen.mask(s + 1)))
        for i, (t, s) in enumerate(itertools.pairwise(times))
    ]


def entropy(attention: Tensor) -> float:
    """Shannon entropy of a map's 256-level histogram, 0 … 8 bits."""
    levels = (attention.clamp(0, 1) * 255).round().long().flatten().cpu()
    shares = torch.bincount(levels, minlength=256).double() / levels.numel()
    return float(-(shares * shares.clamp(min=1e-300).log2()).sum()) + 0.0


@dataclass(frozen=True)
class Transition:
    """One step t → s of a run as pictures, each decoded once for all that show it."""

    run: PassBegin
    record: StepRecord

    @cached_property
    def mask(self) -> Tensor:
        """Where it refined, without padding."""
        return self.run.plan.cut(self.record.mask)

    @cached_property
    def state(self) -> Tensor:
        """z_s as a picture."""
        return self.run.decode(self.record.z_s)

    @cached_property
    def estimate(self) -> Tensor:
        """ẑ_0 as a picture: inside the mask the network's, outside the unrefined picture."""
        record = self.record
        return self.run.decode(torch.where(record.mask, record.z_0, self.run.z_lr))


def small(picture: Tensor, longest: int = PANEL) -> Tensor:
    """(1, C, H, W) in [0, 1] → (3, h, w) uint8, made smaller if a side exceeds ``longest``."""
    factor = longest / max(picture.shape[-2:])
    if factor < 1:
        size = [max(1, round(n * factor)) for n in picture.shape[-2:]]
        picture = F.interpolate(picture, size, mode="bilinear", antialias=True)
    return (picture[0].expand(3, -1, -1).clamp(0, 1) * 255).round().byte().cpu()


@dataclass
class Film:
    """The steps of every pass as small frames, at most ``MAX_FRAMES`` a pass; ``every`` skips some.

    ``passes`` holds the row at which each pass begins.
    """

    every: int = 1
    frames: list[Frame] = field(default_factory=list)
    rows: list[StepRow] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    run: PassBegin | None = None

    def on_pass(self, run: PassBegin) -> None:
        self.run = run
        self.passes.append(len(self.rows))

    def on_step(self, step: Transition) -> None:
        record = step.record
        row = StepRow(record.index, record.t, record.s, share(step.mask))
        self.rows.append(row)
        steps = len(step.run.plan.first.timesteps) - 1
        stride = max(self.every, math.ceil(steps / MAX_FRAMES))
        if record.index % stride and record.s > 0:
            return
        state, estimate = small(step.state), small(step.estimate)
        # The mask may lie on a coarser grid than the picture: that of latents.
        mask = small(step.mask.float().cpu())[None]
        seen = F.interpolate(mask, state.shape[-2:], mode="nearest")
        self.frames.append(Frame(row, len(self.rows) - 1, state, estimate, seen[0]))

    def first_pass(self) -> tuple[list[StepRow], list[Frame]]:
        """The rows and frames of the first pass alone."""
        end = self.passes[1] if len(self.passes) > 1 else len(self.rows)
        return self.rows[:end], [frame for frame in self.frames if frame.number < end]

    def animation(self, every: int = 1, kind: str = "WEBP") -> bytes:
        """State, estimate and mask side by side, the last frame held."""
        kept = [f for f in self.frames if f.row.index % every == 0 or f.row.s == 0]
        sheets = [torch.cat([f.state, f.estimate, f.mask], 2) for f in kept]
        shape = sheets[0].shape
        pictures = tuple(Picture(s[None].float() / 255) for s in sheets if s.shape == shape)
        times = (FRAME_MILLISECONDS,) * (len(pictures) - 1) + (LAST_MILLISECONDS,)
        film = Animation(pictures, times)
        return encode_frames(film, kind=kind, quality=80, provenance=MADE_BY)


@dataclass(frozen=True)
class Wanted:
    """What a dump writes; every ``every``-th step and the last."""

    attention: bool = True
    masks: bool = True
    steps: bool = True
    every: int = 1


def dump_folder(folder: Path, source: Path, taken: set[str]) -> Path:
    """Where one picture's dump goes: named after it, and never shared by two of one run."""
    plain = source.stem if source.stem not in ("", ".", "..") else source.stem.replace(".", "_")
    for name in itertools.chain([plain], (f"{plain}-{n}" for n in itertools.count(2))):
        place = fitting(name, "")
        if place.casefold() not in taken:
            break
    taken.add(place.casefold())
    return folder / place


@dataclass
class Dump:
    """Writes what it sees into ``folder`` as it happens; ``written`` lists the files."""

    folder: Path
    wanted: Wanted
    film: Film
    outputs: Outputs
    written: list[Path] = field(default_factory=list)

    def begin(self) -> None:
        """Make the folder; refuse one with files in the way, before any work."""
        if is_link(self.folder) or self.outputs.holds(self.folder):
            raise OutputError(f"{shown(self.folder)} cannot take a dump; choose another --dump")
        make_folder(self.folder)
        for path in entries_of(self.folder):
            if DUMPED.fullmatch(path.name):
                self.outputs.check_of(is_dumped)(path)

    def on_pass(self, run: PassBegin) -> None:
        if self.wanted.attention:
            self._picture("attention", run.plan.attention, bits=16)

    def on_step(self, step: Transition) -> None:
        record = step.record
        if record.index % self.wanted.every and record.s > 0:
            return
        name = f"{record.index:04d}_t{record.t:04d}-{record.s:04d}"
        if self.wanted.masks:
            self._picture(f"mask_{name}", step.mask.float())
        if self.wanted.steps:
            self._picture(f"state_{name}", step.state)
            self._picture(f"estimate_{name}", step.estimate)

    def finish(self) -> None:
        """Write the table of steps and the animation."""
        rows = [asdict(row) for row in self.film.rows]
        document = {**MADE_BY, "schema": 1, "steps": rows}
        self._write("steps.json", json.dumps(document, indent=1).encode())
        self._write("steps.csv", table(self.film.rows).encode())
        if self.film.frames:
            self._write("process.webp", self.film.animation(self.wanted.every))

    def _picture(self, name: str, values: Tensor, bits: int = 8) -> None:
        values = values.cpu()
        picture = Picture(values.expand(1, 3, -1, -1), is_grey=values.shape[1] == 1, bits=bits)
        number = len(self.film.passes)
        prefix = f"pass{number}_" if number > 1 else ""
        self._write(f"{prefix}{name}.png", encode_picture(picture, kind="PNG", provenance=MADE_BY))

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        write_atomically(path, data, self.outputs.check_of(is_dumped))
        self.written.append(path)


def is_dumped(path: Path) -> bool:
    """Whether a dump wrote the file."""
    if path.suffix == ".csv":
        return has_mark(table([]).encode())(path)
    if path.suffix == ".json":
        return has_mark(b'"software": "yoda ')(path)
    return made_by_yoda(path)


def table(rows: Sequence[StepRow]) -> str:
    """CSV of the steps."""
    out = io.StringIO()
    writer = csv.DictWriter(out, ["index", "t", "s", "active_share"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return out.getvalue()
