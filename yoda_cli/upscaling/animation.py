"""An animation from disk to disk: its frames are read, enlarged and written one at a time.

Held are a frame or two and, by some encoders, the compressed file. Every frame is decoded before
the first one is enlarged, so that a damaged one costs no work.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO, cast

from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.devices.memory import reset_peak
from yoda_cli.errors import name_surprises
from yoda_cli.files import make_folder, whole_file
from yoda_cli.files.overwriting import replacing
from yoda_cli.images import (
    Picture,
    frames_of,
    scan_animation,
    sweep_temporaries,
    write_frames,
)
from yoda_cli.images.resize import as_floats
from yoda_cli.models.model import Model
from yoda_cli.upscaling.batch.inputs import STREAM
from yoda_cli.upscaling.picture import (
    Finished,
    Item,
    as_watched,
    finished_of,
    resolve_for_picture,
    send,
    visible_colors,
    with_result,
)
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.provenance import provenance
from yoda_cli.upscaling.result import Observer, Result
from yoda_cli.upscaling.settings import Settings
from yoda_cli.upscaling.stable_source import hash_of_stable_file
from yoda_cli.upscaling.streaming import stream as stream_picture
from yoda_cli.upscaling.streaming import wants_stream

if TYPE_CHECKING:
    from torch import Tensor

COUNTS = ("planned_calls", "calls", "dense_calls", "seconds")


def is_held(item: Item, model: Model, options: UpscaleOptions, observer: Observer) -> bool:
    """Whether a picture is decoded, enlarged and written whole."""
    if item.is_animated:
        return False
    return observer.whole or not wants_stream(item, model, item.settled(options))


def make_in_parts(
    item: Item, model: Model, options: UpscaleOptions, writing: WriteOptions, observer: Observer,
    stream: bytes | None = None,
) -> Finished:  # fmt: skip
    """Read, enlarge and write what is never held whole: an animation, a picture beyond memory."""
    if item.is_animated:
        return animate(item, model, options, writing, observer, stream)
    return stream_picture(item, model, options, writing, observer)


@dataclass
class Enlarging:
    """Frames on their way; all share the noise of the first, so that still parts stand still.

    ``total`` is the first frame's result with the counts of all so far.
    """

    model: Model
    settings: Settings
    observer: Observer
    first: Tensor
    total: Result | None = field(default=None)

    def enlarge(self, frames: Iterator[Picture]) -> Iterator[Picture]:
        for frame in frames:
            lr = self.first if self.total is None else visible_colors(frame)
            result = upscale_tensor(
                lr, self.model, self.settings, self.observer, noise_of=self.first
            )
            if self.total is None:
                self.total = result
                self.observer = unwatched(self.observer)
            else:
                self.total = with_counts(self.total, result)
            yield with_result(frame, result)


def animate(
    item: Item, model: Model, options: UpscaleOptions, writing: WriteOptions, observer: Observer,
    stream: bytes | None = None,
) -> Finished:  # fmt: skip
    """Read, enlarge and write an animation. ``stream`` is what came from standard input.

    Those who watch see the diffusion of the first frame only.
    """
    reset_peak(model.device)
    source = item.source if item.source != STREAM else stream
    assert source is not None
    with (
        output_of(item, writing) as out,
        name_surprises(str(item.source)),
        hash_of_stable_file(item.source) as sha256,
    ):
        header = scan_animation(source, accept_damaged=item.accept_damaged)
        decoded = frames_of(source, accept_damaged=header.accepts_damage, plain=model.is_plain)
        with contextlib.closing(decoded):
            frames = (replace(frame, rgb=as_floats(frame.rgb)) for frame, _ in decoded)
            first = next(frames)
            lr = visible_colors(first)
            settings, said = resolve_for_picture(lr, model, item.settled(options))
            settings, said = as_watched(settings, said, observer)
            work = Enlarging(model, settings, observer, lr)
            write_frames(
                out, work.enlarge(itertools.chain([first], frames)), header, kind=item.kind,
                quality=writing.quality, strip_metadata=writing.strip_metadata,
                provenance=provenance(model, settings),
            )  # fmt: skip
    assert work.total is not None
    frame_count = len(header.milliseconds)
    told = work.total.forecast_seconds * frame_count  # as it was said, before the first frame
    total = replace(work.total, forecast_seconds=told)
    first = replace(first, notices=header.notices + first.notices)
    done = finished_of(item, first, total, model, settings, said, sha256)
    return replace(done, frames=frame_count)


def unwatched(observer: Observer) -> Observer:
    """The same, for a further frame: it counts, and shows nothing of its diffusion."""
    nothing = Observer()
    return replace(observer, on_pass=nothing.on_pass, on_step=nothing.on_step)


def with_counts(total: Result, result: Result) -> Result:
    """``total`` with the counts of one more result."""
    counts = {name: getattr(total, name) + getattr(result, name) for name in COUNTS}
    return replace(total, recovered=total.recovered + result.recovered, **counts)


@contextlib.contextmanager
def output_of(item: Item, writing: WriteOptions) -> Iterator[BinaryIO]:
    """A file that becomes the target when it is whole, or goes to standard output then."""
    if item.target == STREAM:
        with tempfile.TemporaryFile() as opened:
            file = cast(BinaryIO, opened)
            yield file
            file.seek(0)
            send(file)
        return
    make_folder(item.target.parent)
    sweep_temporaries(item.target.parent)
    check = replacing(writing.existing, item.is_ours)
    with whole_file(item.target, check) as partial, partial.open("xb") as made:
        yield made
