"""A planned batch on the engine that was asked for: here, on several processes, or on Ray."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import UsageError
from yoda_cli.models.calibration import costs_of
from yoda_cli.models.model import Model
from yoda_cli.upscaling.batch.inputs import STREAM
from yoda_cli.upscaling.batch.local import run_here
from yoda_cli.upscaling.batch.plan import Batch, Events, Failure
from yoda_cli.upscaling.picture import Finished, Item, look_ahead
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.pipeline import only_reduces
from yoda_cli.upscaling.result import Observer
from yoda_cli.upscaling.streaming import with_stream_blocks

ENGINES = ("local", "ray")


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
    on_done: Callable[[Finished], None] = lambda done: None,
) -> list[Failure]:  # fmt: skip
    """Make every item of ``batch``; what could not be made.

    ``stream`` is what came from standard input. ``observing`` and ``on_done`` are only asked where
    this process does the work.
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
        return run_workers(batch, options, writing, events, jobs, fail_fast=engine.fail_fast)
    if model.family is None:  # else the networks are read when stage one is done
        costs_of(model)  # measured before the first picture's time is taken
    return run_here(
        batch, model, options, writing, events, observing, stream=stream,
        fail_fast=engine.fail_fast, on_done=on_done,
    )  # fmt: skip


def forecast_of(
    item: Item, model: Model, options: UpscaleOptions, stream: bytes | None = None
) -> dict[str, Any]:
    """What ``--dry-run`` says of a picture: sizes, calls, seconds. Nothing is computed."""
    scale = item.scale or float(model.scale)
    width, height = (max(1, round(n * scale)) for n in (item.width, item.height))
    record = {
        "schema": 1,
        "input": str(item.source),
        "output": str(item.target),
        "width": width,
        "height": height,
        "frames": item.frames,
    }
    if only_reduces(model, item.scale):
        nothing = {"planned_calls": 0, "dense_calls": 0, "blocks": 0, "forecast_seconds": 0.0}
        return record | nothing
    data = stream if item.source == STREAM else None
    plan, _ = look_ahead(item, model, with_stream_blocks(item, model, options), data)
    if plan.calls_range[0] < plan.calls_range[1]:  # decided on the way: all else is expected
        record |= {"calls_range": list(plan.calls_range), "seconds_range": seconds_range(plan)}
    return record | {
        "planned_calls": plan.planned_calls,
        "dense_calls": plan.dense_calls,
        "blocks": len(plan.blocks),
        "forecast_seconds": round((plan.forecast_seconds or 0.0) * item.frames, 3),
    }


def seconds_range(plan: PicturePlan) -> list[float]:
    """The forecast for the fewest and the most calls, in proportion to those expected."""
    share = (plan.forecast_seconds or 0.0) / max(plan.planned_calls, 1)
    return [round(share * calls, 3) for calls in plan.calls_range]
