"""One self-contained HTML page about one run: no network, no other file.

The page is ``report.html`` with one JSON document put in; pictures are data addresses.
"""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.config import WriteOptions
from yoda_cli.diffusion.yoda import StepRecord
from yoda_cli.files import Check, counted
from yoda_cli.files.overwriting import Outputs, has_mark
from yoda_cli.images import Metadata, Picture, encode_picture, shown, write_atomically
from yoda_cli.images.resize import imresize
from yoda_cli.models.model import Model
from yoda_cli.reports.inspection import Dump, Film, Transition, Wanted, small
from yoda_cli.reports.regions import curves, said, steps_map
from yoda_cli.reports.visualize import overlay, with_legend
from yoda_cli.upscaling.picture import Finished
from yoda_cli.upscaling.result import PassBegin
from yoda_cli.version import __version__

#: What tells a page of ours from any other.
is_page = has_mark(b'<meta name="generator" content="yoda">')
SIDE = 1600  # longest side of what is only looked at as a whole
LENS_PIXELS = 24_000_000  # of the pictures that the lens looks into


@dataclass(frozen=True)
class Watcher:
    """Watches one picture for a dump, a report, both or neither."""

    film: Film
    dump: Dump | None = None
    report: Path | None = None
    report_check: Check | None = None

    @staticmethod
    def of(
        folder: Path | None, wanted: Wanted, report: Path | None, check: Check | None,
        outputs: Outputs,
    ) -> Watcher:  # fmt: skip
        """``folder`` is the picture's own; ``check`` judges what stands at ``report``."""
        film = Film(1 if report is not None else wanted.every)
        dump = None
        if folder is not None:
            dump = Dump(folder, wanted, film, outputs)
            dump.begin()
        return Watcher(film, dump, report, check)

    def on_pass(self, run: PassBegin) -> None:
        self.film.on_pass(run)
        if self.dump is not None:
            self.dump.on_pass(run)

    def on_step(self, record: StepRecord) -> None:
        assert self.film.run is not None
        step = Transition(self.film.run, record)
        self.film.on_step(step)
        if self.dump is not None:
            self.dump.on_step(step)

    def finish(self, done: Finished, model: Model, writing: WriteOptions) -> None:
        """Write what is written at the end."""
        if self.dump is not None:
            self.dump.finish()
        if self.report is not None and self.report_check is not None:
            content = document(done, self.film, model, writing)
            write_report(self.report, self.report_check, content)


def write_report(path: Path, check: Check, content: Mapping[str, Any]) -> None:
    """Write the page about a finished picture."""
    write_page(path, check, "report.html", content)


def write_page(path: Path, check: Check, template: str, content: Mapping[str, Any]) -> None:
    """Write ``template`` with ``content``, the slider and the lens put in."""
    place = files("yoda_cli.reports")
    parts = {"style": "page.css", "viewer": "viewer.html", "script": "viewer.js"}
    fixed = {name: (place / file).read_text(encoding="utf-8") for name, file in parts.items()}
    data = json.dumps(content, ensure_ascii=False)
    safe = data.replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " ")
    page = Template((place / template).read_text(encoding="utf-8"))
    text = page.substitute(data=safe, **fixed)
    write_atomically(path, text.encode("utf-8", "backslashreplace"), check)


def document(
    done: Finished, film: Film, model: Model, writing: WriteOptions
) -> dict[str, Any]:  # fmt: skip
    """Everything the page shows."""
    image, lr = done.result.image, done.lr
    height, width = image.shape[-2:]
    reduced = small(image, SIDE)
    before = small(imresize(lr, (height, width)).clamp(0, 1), SIDE)
    size = (reduced.shape[1], reduced.shape[2])
    seen = F.interpolate(done.result.attention, size, mode="bilinear").clamp(0, 1)
    rows, frames = film.first_pass() if film.run is not None else ([], [])
    return {
        "title": shown(done.source).rsplit("/", 1)[-1],
        "subtitle": f"{lr.shape[-1]}×{lr.shape[-2]} → {width}×{height}, {model.name}, "
        f"{done.result.seconds:.1f} s",
        "shown": "Drag over the picture, or use the arrow keys on the slider.",
        "left": "bicubic enlargement",
        "right": "yoda",
        "width": width,
        "height": height,
        "spot": busiest(done.result.attention, width, height),
        "panels": [
            {"name": "the input, its pixels as squares", "image": "source"},
            {"name": "yoda", "image": "after"},
        ],
        "attention": f"Attention {done.settings.mask.source}: yellow is refined"
        " from the first step, blue from the last. "
        f"Mean {float(done.result.attention.mean()):.3f}.",
        "images": {
            "before": data_address(before),
            "after": data_address(small(image, whole_side(width, height))),
            "source": data_address(small(lr, SIDE)),
            "overlay": data_address(overlay(reduced, seen)),
        },
        "rows": [asdict(row) for row in rows],
        "frames": [
            {
                "row": asdict(frame.row),
                "bar": frame.row.index,
                "state": data_address(frame.state),
                "estimate": data_address(frame.estimate),
                "mask": data_address(frame.mask),
            }
            for frame in frames
        ],
        "regions": regions_of(done, small(image, SIDE)),
        "facts": facts(done, model),
        "command": done.settings.command(done.source, done.target, writing),
        "card": card_rows(model.card),
    }


def regions_of(done: Finished, picture: Tensor) -> dict[str, Any] | None:
    """What each region did, where the run decided on its way; ``picture`` is (3, h, w) uint8."""
    regions, chain = done.result.regions, len(done.settings.sampling.timesteps) - 1
    if not regions:
        return None
    steps = F.interpolate(steps_map(regions, chain), picture.shape[1:], mode="nearest")
    return {
        "map": data_address(with_legend(overlay(picture, steps))),
        "said": said(regions, chain),
        "tau": done.settings.sampling.adaptive.rule.tau if done.settings.sampling.adaptive else 0,
        "curves": curves(regions),
    }


def whole_side(width: int, height: int) -> int:
    """The longest side of a picture in a page: its own, or what makes ``LENS_PIXELS`` of it."""
    return int(max(width, height) * min(1.0, (LENS_PIXELS / (width * height)) ** 0.5))


def busiest(values: Tensor, width: int, height: int) -> list[float]:
    """The point, in pixels of width × height, around which a map (1, 1, h, w) is largest."""
    h, w = values.shape[-2:]
    area = max(1, min(h, w) // 8) | 1
    mean = F.avg_pool2d(values, area, 1, area // 2, count_include_pad=False)
    row, column = divmod(int(mean.flatten().argmax()), w)
    return [(column + 0.5) * width / w, (row + 0.5) * height / h]


def data_address(picture: Tensor, *, lossless: bool = False) -> str:
    """A (3, h, w) uint8 picture as a data address."""
    made = Picture(picture[None].float() / 255, metadata=Metadata(is_lossless=lossless))
    packed = encode_picture(made, kind="WEBP", quality=None if lossless else 90)
    return "data:image/webp;base64," + base64.b64encode(packed).decode()


def facts(done: Finished, model: Model) -> list[tuple[str, str]]:
    """Settings, counts and times as rows."""
    result = done.result
    saved = result.dense_calls - result.calls
    planned = "expected" if result.regions else "planned"
    why = "idle tiles and left-out steps" if result.regions else "the result is the same"
    return [
        *((name.replace("_", " "), str(value)) for name, value in done.settings.rows()),
        *((name, "on") for name in done.settings.switches()),
        ("tiles", f"{result.calls} computed, {result.planned_calls} {planned}"),
        ("tiles left out", f"{saved} of {result.dense_calls}; {why}"),
        (
            "time",
            f"{result.seconds:.2f} s on {model.device}, {result.forecast_seconds:.2f} forecast",
        ),
        ("machine", f"{platform.machine()}, {counted(torch.get_num_threads(), 'thread')}"),
        ("software", f"yoda {__version__}, torch {torch.__version__}"),
        ("result", shown(done.target)),
    ]


def card_rows(card: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested card, flat."""
    rows: list[tuple[str, str]] = []
    for key, value in card.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += card_rows(value, f"{name}: ")
        else:
            rows.append((name, str(value)))
    return rows
