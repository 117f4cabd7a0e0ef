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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.diffusion.yoda import StepRecord, share
from yoda_cli.errors import OutputError
from yoda_cli.images import (
    Animation,
    Picture,
    encode_frames,
    encode_picture,
    shown,
    write_atomically,
)
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.result import PassBegin

PANEL = 384  # longest side of a panel of the animation and of the report's steps, pixels
MAX_FRAMES = 60
FRAME_MILLISECONDS = 160.0
LAST_MILLISECONDS = 1600.0


@dataclass(frozen=True)
class StepRow:
    """One transition t → s and the share of the picture that it refined."""

    index: int
    t: int
    s: int
    active_share: float


@dataclass(frozen=True)
class Frame:
    """One transition as three small pictures (3, h, w) uint8: state, estimate, mask."""

    row: StepRow
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


def estimate_of(run: PassBegin, record: StepRecord) -> Tensor:
    """ẑ_0 as a picture: inside the mask the network's, outside the unrefined picture."""
    return run.decode(torch.where(record.mask, record.z_0, run.z_lr))


def small(picture: Tensor, longest: int = PANEL) -> Tensor:
    """(1, C, H, W) in [0, 1] → (3, h, w) uint8, made smaller if a side exceeds ``longest``."""
    factor = longest / max(picture.shape[-2:])
    if factor < 1:
        size = [max(1, round(n * factor)) for n in picture.shape[-2:]]
        picture = F.interpolate(picture, size, mode="bilinear", antialias=True)
    return (picture[0].expand(3, -1, -1).clamp(0, 1) * 255).round().byte().cpu()


@dataclass
class Film:
    """The steps of every pass as small frames, at most ``MAX_FRAMES``; ``every`` skips some."""

    every: int = 1
    frames: list[Frame] = field(default_factory=list)
    rows: list[StepRow] = field(default_factory=list)
    run: PassBegin | None = None

    def on_pass(self, run: PassBegin) -> None:
        self.run = run

    def on_step(self, record: StepRecord) -> None:
        assert self.run is not None
        run = self.run
        mask = run.plan.cut(record.mask)
        row = StepRow(record.index, record.t, record.s, share(mask))
        self.rows.append(row)
        stride = max(self.every, math.ceil((len(run.plan.first.timesteps) - 1) / MAX_FRAMES))
        if record.index % stride and record.s > 0:
            return
        state, estimate = small(run.decode(record.z_s)), small(estimate_of(run, record))
        # The mask may lie on a coarser grid than the picture: that of latents.
        shown = F.interpolate(small(mask.float().cpu())[None], state.shape[-2:], mode="nearest")
        self.frames.append(Frame(row, state, estimate, shown[0]))

    def animation(self, kind: str = "WEBP") -> bytes:
        """State, estimate and mask side by side, the last frame held."""
        sheets = [torch.cat([f.state, f.estimate, f.mask], 2) for f in self.frames]
        shape = sheets[0].shape
        pictures = tuple(Picture(s[None].float() / 255) for s in sheets if s.shape == shape)
        times = (FRAME_MILLISECONDS,) * (len(pictures) - 1) + (LAST_MILLISECONDS,)
        return encode_frames(Animation(pictures, times), kind=kind, quality=80)


@dataclass(frozen=True)
class Wanted:
    """What a dump writes; every ``every``-th step and the last."""

    attention: bool = True
    masks: bool = True
    steps: bool = True
    every: int = 1


def dump_folder(folder: Path, source: Path, taken: set[Path]) -> Path:
    """A folder for one picture, named after it; two pictures of one run never share one."""
    for name in itertools.chain([source.stem], (f"{source.stem}-{n}" for n in itertools.count(2))):
        target = folder / name
        if target.resolve() not in taken:
            break
    taken.add(target.resolve())
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {shown(target)}: {error.strerror or error}") from error
    return target


@dataclass
class Dump:
    """Writes what it sees into ``folder`` as it happens; ``written`` lists the files."""

    folder: Path
    wanted: Wanted
    film: Film = field(default_factory=Film)
    written: list[Path] = field(default_factory=list)
    passes: int = 0

    def on_pass(self, run: PassBegin) -> None:
        self.passes += 1
        self.film.on_pass(run)
        self.film.every = self.wanted.every
        if self.wanted.attention:
            self._picture("attention", run.plan.attention, bits=16)

    def on_step(self, record: StepRecord) -> None:
        self.film.on_step(record)
        run = self.film.run
        assert run is not None
        if record.index % self.wanted.every and record.s > 0:
            return
        step = f"{record.index:04d}_t{record.t:04d}-{record.s:04d}"
        if self.wanted.masks:
            self._picture(f"mask_{step}", run.plan.cut(record.mask).float())
        if self.wanted.steps:
            self._picture(f"state_{step}", run.decode(record.z_s))
            self._picture(f"estimate_{step}", estimate_of(run, record))

    def finish(self) -> None:
        """Write the table of steps and the animation."""
        rows = [asdict(row) for row in self.film.rows]
        self._write("steps.json", json.dumps({"schema": 1, "steps": rows}, indent=1).encode())
        self._write("steps.csv", table(self.film.rows).encode())
        if self.film.frames:
            self._write("process.webp", self.film.animation())

    def _picture(self, name: str, values: Tensor, bits: int = 8) -> None:
        values = values.cpu()
        picture = Picture(values.expand(1, 3, -1, -1), is_grey=values.shape[1] == 1, bits=bits)
        prefix = f"pass{self.passes}_" if self.passes > 1 else ""
        self._write(f"{prefix}{name}.png", encode_picture(picture, kind="PNG"))

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        write_atomically(path, data)
        self.written.append(path)


def table(rows: Sequence[StepRow]) -> str:
    """CSV of the steps."""
    out = io.StringIO()
    writer = csv.DictWriter(out, ["index", "t", "s", "active_share"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return out.getvalue()
