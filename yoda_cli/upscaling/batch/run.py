"""A planned batch on the engine that was asked for: here, on several processes, or on Ray."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import UsageError
from yoda_cli.models.calibration import costs_of
from yoda_cli.models.model import Model
from yoda_cli.upscaling.batch.inputs import STREAM, Found
from yoda_cli.upscaling.batch.local import run_here
from yoda_cli.upscaling.batch.outputs import Naming, target_of
from yoda_cli.upscaling.batch.plan import Batch, Events, Failure, sized
from yoda_cli.upscaling.batch.record import SCHEMA
from yoda_cli.upscaling.picture import Finished, Item, look_ahead
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.pipeline import foresee, only_reduces
from yoda_cli.upscaling.result import Observer
from yoda_cli.upscaling.streaming import with_stream_blocks

ENGINES = ("local", "ray")
FORECAST = ("planned_calls", "dense_calls", "blocks", "forecast_seconds")


@dataclass(frozen=True)
class Engine:
    """Who does the work: ``jobs`` processes of this machine, or a Ray cluster at ``address``."""

    name: str = "local"
    jobs: int = 1
    address: str | None = None
    fail_fast: bool = False

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise UsageError(f"engine {self.name!r} is not allowed; use {' or '.join(ENGINES)}")

    @property
    def is_here(self) -> bool:
        """Whether this process does the work, so that it can be watched."""
        return self.name == "local" and self.jobs <= 1


def run_batch(
    batch: Batch, model: Model, options: UpscaleOptions, writing: WriteOptions, events: Events,
    engine: Engine, *, stream: bytes | None = None,
    observing: Callable[[Item], AbstractContextManager[Observer]] = lambda item: nullcontext(
        Observer()
    ),
    on_done: Callable[[Finished], None] = lambda done: None, apart: bool = False,
) -> list[Failure]:  # fmt: skip
    """Make every item of ``batch``; what could not be made.

    ``stream`` is what came from standard input. ``observing`` and ``on_done`` are only asked where
    this process does the work, and ``apart`` then keeps small pictures from going together.
    """
    if not batch.items:
        return []
    if engine.name == "ray":
        from yoda_cli.upscaling.batch.ray import is_worth_cutting, run_ray

        return run_ray(
            batch, options, writing, events, engine.address, engine.jobs,
            is_cut=lambda item: is_worth_cutting(item, model, options),
        )  # fmt: skip
    if not engine.is_here and len(batch.items) > 1:
        from yoda_cli.upscaling.batch.processes import run_workers

        jobs = min(engine.jobs, len(batch.items))
        alone = replace(engine, jobs=1)
        return run_workers(
            batch, options, writing, events, jobs, fail_fast=engine.fail_fast, plain=model.is_plain,
            instead=lambda items: run_batch(
                replace(batch, items=items), model, options, writing, events, alone,
                observing=observing, on_done=on_done,
            ),
        )  # fmt: skip
    if model.family is None:  # else the networks are read when stage one is done
        costs_of(model)  # measured before the first picture's time is taken
    return run_here(
        batch, model, options, writing, events, observing, stream=stream,
        fail_fast=engine.fail_fast, on_done=on_done, apart=apart,
    )  # fmt: skip


def sketch_of(
    one: Found, naming: Naming, native: int, options: UpscaleOptions, *, many: bool,
    stream: bytes | None,
) -> dict[str, Any]:  # fmt: skip
    """What ``--dry-run`` says of a picture while the model's files are not there."""
    header, _, naming = sized(one, naming, native, options, stream)
    target, _ = target_of(one, header, naming, many=many)
    sizes = [max(1, round(side * naming.scale)) for side in (header.width, header.height)]
    unknown: dict[str, Any] = dict.fromkeys(FORECAST)
    return planned(one.path, target, (sizes[0], sizes[1]), header.frames) | unknown


def planned(source: Path, target: Path, size: tuple[int, int], frames: int) -> dict[str, Any]:
    """The start of a record of ``--dry-run``."""
    return {
        "schema": SCHEMA, "status": "planned", "input": str(source), "output": str(target),
        "width": size[0], "height": size[1], "frames": frames,
    }  # fmt: skip


def forecast_of(
    item: Item, model: Model, options: UpscaleOptions, stream: bytes | None = None
) -> dict[str, Any]:
    """What ``--dry-run`` says of a picture: sizes, calls, seconds. Nothing is computed."""
    scale = item.scale or float(model.scale)
    width, height = (max(1, round(n * scale)) for n in (item.width, item.height))
    record = planned(item.source, item.target, (width, height), item.frames_made)
    if only_reduces(model, item.scale):
        return record | dict.fromkeys(FORECAST, 0)
    data = stream if item.source == STREAM else None
    plan, settings = look_ahead(item, model, with_stream_blocks(item, model, options), data)
    ahead = foresee(plan, model, settings)
    if plan.calls_range[0] < plan.calls_range[1]:  # decided on the way: all else is expected
        record |= {"calls_range": list(plan.calls_range), "seconds_range": seconds_range(plan)}
    return record | {
        "planned_calls": ahead.calls * item.frames_made,
        "dense_calls": ahead.dense_calls * item.frames_made,
        "blocks": ahead.blocks,
        "forecast_seconds": round(ahead.seconds * item.frames_made, 3),
    }


def seconds_range(plan: PicturePlan) -> list[float]:
    """The forecast for the fewest and the most calls, in proportion to those expected."""
    share = (plan.forecast_seconds or 0.0) / max(plan.planned_calls, 1)
    return [round(share * calls, 3) for calls in plan.calls_range]
