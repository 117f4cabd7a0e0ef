"""Small pictures computed together: which of them, and from what was decoded to what is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.memory import reset_peak
from yoda_cli.models.model import Model
from yoda_cli.upscaling.picture import (
    Computed,
    Decoded,
    Item,
    finished_of,
    resolve_for_picture,
    visible_colors,
    with_result,
)
from yoda_cli.upscaling.pipeline import name_memory_errors
from yoda_cli.upscaling.result import Observer
from yoda_cli.upscaling.settings import Settings
from yoda_cli.upscaling.together import common_settings, how_many, upscale_together

if TYPE_CHECKING:
    from torch import Tensor


def groups_of(
    items: Sequence[Item], model: Model, options: UpscaleOptions
) -> Iterator[Sequence[Item]]:
    """The items, neighbours of one size together where they are small enough to gain by it."""
    group: list[Item] = []
    for item in items:
        if group and not (goes_on(group, item, model, options)):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def goes_on(group: Sequence[Item], item: Item, model: Model, options: UpscaleOptions) -> bool:
    """Whether an item may go with those before it, by its header and the options alone."""
    first = group[0]
    most = how_many(item.width, item.height, model)
    if options.batch is not None:
        most = min(most, options.batch)
    return (
        len(group) < most
        and model.family is None
        and not (options.exact or options.stream)
        and (item.width, item.height, item.scale) == (first.width, first.height, first.scale)
        and not (item.is_animated or first.is_animated)
        and not item.is_reduced
    )


def compute_together(
    read: Mapping[Item, Decoded], model: Model, options: UpscaleOptions,
    observer_of: Callable[[Item], contextlib.AbstractContextManager[Observer]],
) -> dict[Item, Computed]:  # fmt: skip
    """Enlarge small pictures of one size in step; those that must go alone are left out."""
    resolved: dict[Item, tuple[Tensor, Settings, tuple[str, ...]]] = {}
    common: Settings | None = None
    for item, decoded in read.items():
        lr = visible_colors(decoded.picture)
        settings, said = resolve_for_picture(lr, model, item.settled(options))
        own = common_settings(model, settings)
        common = common or own
        if own is not None and own == common:
            resolved[item] = lr, settings, said
    if len(resolved) < 2:
        return {}
    reset_peak(model.device)
    with contextlib.ExitStack() as stack:
        observers = [stack.enter_context(observer_of(item)) for item in resolved]
        with name_memory_errors():
            results = upscale_together(
                [lr for lr, _, _ in resolved.values()], model,
                [settings for _, settings, _ in resolved.values()], observers,
            )  # fmt: skip
    made: dict[Item, Computed] = {}
    for (item, (_, settings, said)), result in zip(resolved.items(), results, strict=True):
        picture, digest = read[item].picture, read[item].sha256
        done = finished_of(item, picture, result, model, settings, said, digest)
        made[item] = Computed(done, with_result(picture, result))
    return made
