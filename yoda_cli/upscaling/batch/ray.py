"""A batch on a Ray cluster: an actor with a model per core or GPU, over folders they all see.

An actor that is lost is replaced and its work done again. A picture of several blocks is cut: any
actor makes any block, and since plan and noise are the picture's own, the bytes are those of one
worker with one thread.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.devices.device import upload
from yoda_cli.devices.out_of_memory import Counter, Recovered
from yoda_cli.errors import DeviceError, WeightsError, YodaError, how_to_install
from yoda_cli.files.paths import is_file
from yoda_cli.images import Picture
from yoda_cli.models.model import Model
from yoda_cli.upscaling.adaptive import RegionRun
from yoda_cli.upscaling.batch.plan import Batch, Events, Failure, record_in_manifest, report_failure
from yoda_cli.upscaling.batch.processes import Worker
from yoda_cli.upscaling.batch.ray_pool import Call, Pool
from yoda_cli.upscaling.batch.record import record_of
from yoda_cli.upscaling.blocks import Conditions, begin, blend_blocks, picture_seed, run_block
from yoda_cli.upscaling.memory_limits import WHOLE_PIXELS
from yoda_cli.upscaling.picture import (
    Computed,
    Item,
    finished_of,
    read,
    resolve_for_picture,
    visible_colors,
    with_result,
    write,
)
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.pipeline import exact_kernels, pipeline_of
from yoda_cli.upscaling.result import Observer, PassEnd, result_of
from yoda_cli.upscaling.settings import Settings
from yoda_cli.upscaling.streaming import wants_stream

CONNECT_SECONDS = 5.0  # as long as a person waits before looking up the address again


@dataclass(frozen=True)
class Looked:
    """A picture that is to be cut, and its plan."""

    plan: PicturePlan
    picture: Picture
    settings: Settings
    began: float
    sha256: str


@dataclass(frozen=True)
class Block:
    """One block's window (1, 3, h, w), and what it took."""

    image: Tensor
    calls: int
    recovered: Recovered
    region: RegionRun | None = None


class Actor:
    """What runs in an actor's process."""

    def __init__(
        self, options: UpscaleOptions, writing: WriteOptions, environment: dict[str, str]
    ) -> None:
        os.environ.update(environment)
        self.worker = Worker.start(options, writing, 1)

    def whole(self, item: Item) -> dict[str, Any]:
        """A picture from file to file."""
        return self.worker.do(item)

    def look(self, item: Item) -> Looked:
        """The plan of a picture that is to be cut."""
        began, model = time.time(), self.worker.model
        decoded = read(item)
        picture = decoded.picture
        lr = visible_colors(picture)
        settings, _ = resolve_for_picture(lr, model, item.settled(self.worker.options))
        with torch.inference_mode(), exact_kernels(settings.tiles.exact):
            plan, _ = begin(lr, model, settings)
        return Looked(plan, picture, settings, began, decoded.sha256)

    def block(self, looked: Looked, index: int) -> Block:
        """One block of it."""
        plan, settings, model = looked.plan, looked.settings, self.worker.model
        with torch.inference_mode(), exact_kernels(settings.tiles.exact):
            lr = upload(plan.lr, model.device)
            condition = Conditions(lr, model, settings, plan.blocks).take(index)
            counter, seed = Counter(), picture_seed(settings.sampling.seed, plan.lr)
            made = run_block(plan, index, condition, model, settings, Observer(), seed, counter)
        return Block(made.image, counter.calls, counter.recovered(), made.region)

    def join(self, item: Item, looked: Looked, *blocks: Block) -> dict[str, Any]:
        """The picture from its blocks, written; its record."""
        plan, model = looked.plan, self.worker.model
        image = blend_blocks(plan, (block.image for block in blocks))
        seconds = time.time() - looked.began
        end = PassEnd(
            image=image,
            plan=plan,
            calls=sum(block.calls for block in blocks),
            forecast_seconds=plan.forecast_seconds or 0.0,
            seconds=seconds,
            recovered=sum((block.recovered for block in blocks), Recovered()),
            regions=tuple(block.region for block in blocks if block.region),
        )
        result = result_of([end], image, seconds)
        done = finished_of(
            item, looked.picture, result, model, looked.settings, sha256=looked.sha256
        )
        computed = Computed(done, with_result(looked.picture, result))
        return record_of(write(item, computed, model, self.worker.writing), model)


def run_ray(
    batch: Batch, options: UpscaleOptions, writing: WriteOptions, events: Events,
    address: str | None, jobs: int = 1, *, is_cut: Callable[[Item], bool] = lambda item: False,
) -> list[Failure]:  # fmt: skip
    """All items on the cluster at ``address``, or one started here; ``jobs`` 1: as many actors as
    it has GPUs or cores. A picture stays with one actor unless it ``is_cut``."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise WeightsError(f"--engine ray needs Ray: {how_to_install('ray')}") from error
    mine = not ray.is_initialized()
    if mine:
        check_address(address)
        on_terminate = signal.getsignal(signal.SIGTERM)
        start(ray, address)
        signal.signal(signal.SIGTERM, on_terminate)  # Ray puts its own in place
    try:
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = int(resources.get("GPU", 0)) if options.device in ("auto", "cuda") else 0
        count = jobs if jobs > 1 else gpus or int(resources.get("CPU", 1))
        remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(Actor)
        here = {k: v for k, v in os.environ.items() if k.startswith("YODA_")}
        asked = absolute(options)
        pool = Pool(ray, lambda: remote.remote(asked, writing, here), max(1, count))
        return _run(batch, events, pool, is_cut)
    finally:
        if mine:
            ray.shutdown()


def start(ray: Any, address: str | None) -> None:
    """Join the cluster at ``address``, or start one here: a busy machine is given three times the
    half minute that Ray gives it. DeviceError where there is none in the end."""
    where = f"no Ray cluster at {address}" if address else "Ray did not start"
    for last in (False, False, True):
        try:
            ray.init(address=address, include_dashboard=False if address is None else None,
                     log_to_driver=False, logging_level=logging.ERROR)  # fmt: skip
        except Exception as error:  # the timeout has no class of its own
            if last or address or "timed out" not in str(error):
                raise DeviceError(f"{where}: {error}") from error
            ray.shutdown()
        else:
            return


def absolute(options: UpscaleOptions) -> UpscaleOptions:
    """``options`` for a process in another folder."""

    def named(text: str) -> str:
        return str(Path(text).absolute()) if is_file(Path(text)) else text

    attention = None if options.attention is None else named(options.attention)
    stage1 = None if options.stage1 is None else named(options.stage1)
    where = None if options.where is None else named(options.where)
    regressor = None if options.regressor is None else named(options.regressor)
    return replace(
        options, model=named(options.model), where=where, attention=attention, stage1=stage1,
        regressor=regressor,
    )  # fmt: skip


def check_address(address: str | None) -> None:
    """Refuse a host and port where nothing answers; Ray itself would wait for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise DeviceError(f"no Ray cluster at {address}: {error}") from error


def _run(batch: Batch, events: Events, pool: Pool, is_cut: Callable[[Item], bool]) -> list[Failure]:
    failures: list[Failure] = []

    def settled(item: Item) -> Callable[[Any], None]:
        names = {"input": str(item.source), "output": str(item.target)}
        return lambda made: record_in_manifest(batch, item, pool.ray.get(made) | names, events)

    for item in batch.items:
        there = replace(item, source=item.source.absolute(), target=item.target.absolute())
        if is_cut(item):
            cut = _cutter(pool, item, there, settled(item), partial(events.on_progress, item))
            pool.waiting.append(Call(item, "look", (there,), cut))
        else:
            pool.waiting.append(Call(item, "whole", (there,), settled(item)))

    def failed(item: Item, error: YodaError) -> None:
        failures.append(report_failure(Failure(item.source, error), events))

    pool.run(failed)
    return failures


def is_worth_cutting(item: Item, model: Model, options: UpscaleOptions) -> bool:
    """Whether several actors may make a picture: in one pass of the network, and held whole."""
    options = item.settled(options)
    if (
        options.faces
        or options.where
        or not pipeline_of(model).can_cut
        or options.stream
        or wants_stream(item, model, options)
    ):
        return False
    made = item.pixels * model.scale**2
    large = made > WHOLE_PIXELS if options.block is None else options.block > 0
    return large and item.frames == 1 and options.scale in (None, float(model.scale))


def _cutter(
    pool: Pool, item: Item, there: Item, settled: Callable[[Any], None],
    tell: Callable[[float], None],
) -> Callable[[Any], None]:  # fmt: skip
    """What follows a look: its blocks, and then the whole. ``tell`` hears the share that is done:
    putting it together counts as one block."""

    def cut(looked: Any) -> None:
        count = len(pool.ray.get(looked).plan.blocks)
        parts: dict[int, Any] = {}

        def taken(index: int) -> Callable[[Any], None]:
            def keep(reference: Any) -> None:
                parts[index] = reference
                tell(len(parts) / (count + 1))
                if len(parts) == count:
                    made: Sequence[Any] = [parts[i] for i in range(count)]
                    pool.waiting.appendleft(Call(item, "join", (there, looked, *made), settled))

            return keep

        for index in range(count):
            pool.waiting.append(Call(item, "block", (looked, index), taken(index)))

    return cut
