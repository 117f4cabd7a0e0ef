"""From an LR image to an SR image: as many passes of the model as the scale needs.

Images are (1, 3, H, W) float32 in [0, 1]. Reads no file, prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from yoda_cli.arrays import blank, for_inference
from yoda_cli.attention import HEADED, LEARNED, NAMES
from yoda_cli.attention.sources import find_source
from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.device import pick_device
from yoda_cli.errors import DeviceError, is_out_of_memory
from yoda_cli.images.resize import imresize, shrink
from yoda_cli.models.model import Model
from yoda_cli.tiling.grids import bilinear
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.pixel import PixelPipeline
from yoda_cli.upscaling.result import Ahead, Observer, PassEnd, Result, result_of, sum_of
from yoda_cli.upscaling.settings import Settings
from yoda_cli.weights import Cache, Watch, load_registry
from yoda_cli.weights.entries import FileEntry
from yoda_cli.weights.inventory import missing, to_bring
from yoda_cli.weights.registry import mistake

if TYPE_CHECKING:
    from torch import Tensor

#: Beyond the native factor, up to this the rest is bicubic; above it the model runs again, on
#: sixteen times the pixels. At 1.5 that takes 11 times the seconds, loses 0.1 dB and comes 0.06
#: nearer in texture; at 2.25 0.10 nearer (`scripts/measure_constants.py RESIZE_ONLY`).
RESIZE_ONLY = 1.5


class Pipeline(Protocol):
    """How the models of a kind are run on one picture.

    One that can be cut into blocks may give them to several workers, and one that can be streamed
    writes them to the disk one by one. ``one_pass``: any scale is reached at once.
    """

    @property
    def can_stream(self) -> bool: ...
    @property
    def can_cut(self) -> bool: ...
    @property
    def one_pass(self) -> bool: ...

    def plan(self, lr: Tensor, settings: Settings, attention: Tensor | None = None) -> PicturePlan:
        """Where a pass would work and what it would cost, without running it."""
        ...

    def run(
        self, lr: Tensor, settings: Settings, observer: Observer,
        attention: Tensor | None = None, noise_of: Tensor | None = None,
    ) -> PassEnd:  # fmt: skip
        """One pass."""
        ...


def pipeline_of(model: Model, wanted: Tensor | None = None) -> Pipeline:
    """The pipeline of a model's kind; one of pixels skips tiles in which nothing is ``wanted``."""
    if model.family is not None:
        from yoda_cli.upscaling.latent import LatentPipeline  # no other model needs it

        return LatentPipeline(model, model.family)
    return PixelPipeline(model, wanted=wanted)


def get_model(options: UpscaleOptions, watch: Watch | None = None) -> Model:
    """The model that ``options`` name, and the weights of the attention source they name.

    Downloads what is missing; ``watch`` is told what, how large, under which licence, to where.
    """
    from yoda_cli.models.loading import (
        find_entry,
        find_model,
        with_faces,
        with_other,
        with_refinement,
    )
    from yoda_cli.models.regressors import with_judge

    device = pick_device(options.device)  # refuse before a long download
    if options.attention not in (None, LEARNED):
        find_source(str(options.attention), options.heads, device, watch or Watch())
    entry = find_entry(options)
    if entry is not None and entry.attention not in NAMES:
        raise mistake(entry, "attention", f"{entry.attention!r} is unknown; use {', '.join(NAMES)}")
    model = find_model(options, watch)
    if options.refine:
        model = with_refinement(model, options, watch)
    if options.where is not None:
        model = with_other(model, options.where, options, watch)
    if options.adaptive:
        model = with_judge(model, options)
    return with_faces(model, options, watch) if options.faces else model


def downloads_of(options: UpscaleOptions) -> list[FileEntry]:
    """What ``get_model`` lacks: files without ``urls``, which a person must fetch, then those that
    would be downloaded. Opens no connection."""
    from yoda_cli.models.loading import files_needed

    names = files_needed(options)
    if options.attention in HEADED:
        names.append(HEADED[str(options.attention)].file)
    if not names:  # no cache is needed
        return []
    registry, cache = load_registry(), Cache.default()
    return [*to_bring(names, registry, cache), *missing(names, registry, cache)]


@contextmanager
def exact_kernels(asked: bool) -> Iterator[None]:
    """One thread and reproducible kernels, if asked: the bytes then depend on no worker count."""
    if not asked:
        yield
        return
    import torch

    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn.deterministic
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = cudnn


@contextmanager
def name_memory_errors() -> Iterator[None]:
    """Memory that runs out where nothing smaller can be tried ends the picture with one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError("out of memory for the canvas; give a smaller --block") from error


@for_inference
def upscale_tensor(
    lr: Tensor,
    model: Model,
    settings: Settings,
    observer: Observer | None = None,
    *,
    attention: Tensor | None = None,
    noise_of: Tensor | None = None,
    wanted: Tensor | None = None,
) -> Result:
    """Enlarge ``lr`` by ``settings.scale``.

    ``attention`` (1, 1, h, w) in [0, 1] takes the place of the source's map in the first pass;
    ``noise_of`` is the picture whose noise is drawn, another than ``lr`` for further frames.
    ``wanted`` (1, 1, h, w) says where the result will be read: tiles elsewhere are left out.

    Further passes of the model are run when the scale is well beyond its factor; what remains is
    a bicubic resize. Faces are restored last, from ``lr``.
    """
    if only_reduces(model, settings.scale):
        return reduce(lr, settings)
    if settings.blend is not None:
        observer = observer or Observer()
        return upscale_blended(lr, model, settings, observer, attention, noise_of)
    began, asked = time.perf_counter(), settings
    noise_of = lr if noise_of is None else noise_of  # rounding in a first pass draws no other
    is_one_pass = settings.scale / model.scale <= RESIZE_ONLY
    pipeline = pipeline_of(model, wanted if is_one_pass else None)
    told: list[Ahead] = []

    def further(plan: PicturePlan) -> Ahead:
        told.append(further_passes(plan, model, settings, reached))
        return told[-1]

    observer = replace(observer or Observer(), further=further)
    height, width = (max(1, round(n * settings.scale)) for n in lr.shape[-2:])
    image, reached = lr, 1.0
    passes: list[PassEnd] = []
    while not passes or (not pipeline.one_pass and settings.scale / reached > RESIZE_ONLY):
        with exact_kernels(settings.tiles.exact), name_memory_errors():
            passes.append(pipeline.run(image, settings, observer, attention, noise_of))
        attention, settings = None, settings.for_next_pass()
        image = passes[-1].image
        reached *= model.scale
    if tuple(image.shape[-2:]) != (height, width):
        image = imresize(image, (height, width)).clip(0, 1)
    image, faces = with_restored_faces(lr, image, model, asked)
    result = result_of(passes, image, time.perf_counter() - began)
    return replace(as_told(result, passes[0], told[0] if told else Ahead()), faces=faces)


def as_told(result: Result, first: PassEnd, later: Ahead) -> Result:
    """``result`` with the time and the calls that were told before the first call."""
    return replace(
        result, forecast_seconds=first.forecast_seconds + later.seconds,
        planned_calls=first.plan.planned_calls + later.calls,
    )  # fmt: skip


def further_passes(
    plan: PicturePlan, model: Model, settings: Settings, reached: float = 1.0
) -> Ahead:
    """What the passes after ``plan`` will take, before any of them: its map, enlarged, stands for
    theirs. ``reached`` is by how much the picture was enlarged before that pass."""
    pipeline, ahead, attention = pipeline_of(model), Ahead(), plan.attention
    reached *= model.scale
    while not pipeline.one_pass and settings.scale / reached > RESIZE_ONLY:
        settings = settings.for_next_pass()
        rows, columns = (n * model.scale for n in attention.shape[-2:])
        attention = bilinear(attention, (rows, columns))
        nothing = blank(attention, 1, 3, rows, columns)
        later = pipeline.plan(nothing, settings, attention)
        seconds = later.forecast_seconds or 0.0
        ahead += Ahead(later.planned_calls, later.dense_calls, len(later.blocks), seconds)
        reached *= model.scale
    return ahead


def upscale_blended(
    lr: Tensor, model: Model, settings: Settings, observer: Observer, weight: Tensor | None,
    noise_of: Tensor | None,
) -> Result:  # fmt: skip
    """The results of two models mixed by the map ``weight``, the source's if left out."""
    from yoda_cli.upscaling.blending import blended, shares_of

    weight, shares = shares_of(lr, model, settings, weight)
    counting = Observer(on_plan=observer.on_plan, on_call=observer.on_call)
    one, two = (
        upscale_tensor(
            lr, share.model, share.settings, watch, noise_of=noise_of, wanted=share.wanted
        )
        for share, watch in zip(shares, (observer, counting), strict=True)
    )
    image, faces = with_restored_faces(
        lr, blended(one.image, two.image, weight), model, settings
    )  # fmt: skip
    return replace(sum_of(one, two), image=image, attention=weight, faces=faces)


def with_restored_faces(
    lr: Tensor, image: Tensor, model: Model, settings: Settings
) -> tuple[Tensor, int]:
    """``image``, made of ``lr``, with its faces restored if that was asked; and how many were."""
    helper, own = model.faces, settings.faces
    if helper is None or own is None:
        return image, 0
    from yoda_cli.upscaling.faces import restored_faces  # OpenCV

    def restore(square: Tensor) -> Tensor:
        return upscale_tensor(square, helper.model, own).image

    return restored_faces(lr, image, helper.detect(lr), restore)


def only_reduces(model: Model, scale: float | None) -> bool:
    """Whether a picture is made smaller, which takes no network but a restorer's."""
    return scale is not None and scale < 1 and not pipeline_of(model).one_pass


def reduce(lr: Tensor, settings: Settings) -> Result:
    """A picture made smaller, by bicubic alone: there is no detail to make up."""
    began = time.perf_counter()
    height, width = (max(1, round(n * settings.scale)) for n in lr.shape[-2:])
    image = shrink(lr, (height, width))
    nowhere = blank(image, 1, 1, *lr.shape[-2:])
    seconds = time.perf_counter() - began
    return Result(image, nowhere, 0, 0, 0, seconds, 0.0, 0, settings.mask.lower_bound)


@for_inference
def plan_picture(lr: Tensor, model: Model, settings: Settings) -> PicturePlan:
    """Where a run's first pass would work and what it would cost, without running it.

    Of two models that are blended: the first one's plan, the seconds of both, and their map.
    """
    if settings.blend is None:
        return pipeline_of(model).plan(lr, settings)
    from yoda_cli.upscaling.blending import shares_of

    weight, shares = shares_of(lr, model, settings)
    plans = [pipeline_of(s.model, s.wanted).plan(lr, s.settings) for s in shares]
    seconds = sum(plan.forecast_seconds or 0.0 for plan in plans)
    return replace(plans[0], forecast_seconds=seconds, attention=weight)


@for_inference
def foresee(plan: PicturePlan, model: Model, settings: Settings) -> Ahead:
    """What all passes will take, the one that was planned and those after it."""
    seconds = plan.forecast_seconds or 0.0
    first = Ahead(plan.planned_calls, plan.dense_calls, len(plan.blocks), seconds)
    return first + further_passes(plan, model, settings)
