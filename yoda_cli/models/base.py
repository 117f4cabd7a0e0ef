"""What a network makes of an image, its Condition, and how its configuration is read.

Conditions are tensors of torch or NumPy's arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from yoda_cli.arrays import joined
from yoda_cli.tiling.windows import Window

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import Tensor

LARGEST = 1e30  # of a configuration's numbers; neither infinite nor nan

C = TypeVar("C", bound="DataclassInstance")


@dataclass(frozen=True)
class Guidance:
    """What steers a network of latents besides the picture.

    ``tokens`` are states (1, L, C) that the networks attend to, by name (``text``, ``image``);
    ``negative`` those of what is not wanted. Without them, or at ``cfg`` 1, the networks run once
    a step. ``strength`` multiplies the controls: one number, or one each. ``fidelity`` in [0, 1]
    draws every estimate towards the condition. ``rescale_cfg`` lets the scale rise from 1 to
    cfg + 1 as t falls.
    """

    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    negative: Mapping[str, Tensor] | None = None
    cfg: float = 1.0
    strength: float | Sequence[float] = 1.0
    fidelity: float = 0.0
    rescale_cfg: bool = False

    def scale(self, t: int, num_steps: int) -> float:
        """The guidance scale at time t in 1 … T = ``num_steps``."""
        if not self.rescale_cfg:
            return self.cfg
        rise = math.cos(math.pi * ((num_steps - (t - 1)) / num_steps) ** 5)
        return 1 + self.cfg * (1 - rise) / 2

    @property
    def calls(self) -> int:
        """How often the networks run in one step."""
        return 1 if self.negative is None or self.cfg == 1 else 2


@dataclass(frozen=True)
class Condition:
    """What a backbone derives once from the LR image.

    ``z_lr`` (B, C, H, W) is the unrefined picture on the diffusion grid. ``maps`` hold whatever
    else ``predict`` and ``decode`` read, each (B, c, H/f, W/f) with an integer f.
    ``attention`` (B, 1, h, w) in [0, 1] is the learned map on the LR grid, if the network has one.
    ``guidance`` steers a network of latents; it is the same for every window. ``gains`` (B, 2) in
    (-1, 1), of fidelity and of realism, are those of the last step where a run decides on its way
    and the network ``takes_gains``; None is zero.
    """

    z_lr: Tensor
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    attention: Tensor | None = None
    guidance: Guidance | None = None
    gains: Tensor | None = None


def stack_conditions(conditions: Sequence[Condition]) -> Condition:
    """Conditions of equal windows of one picture, one after another in the batch."""
    first = conditions[0]
    if len(conditions) == 1:
        return first
    return Condition(
        joined([c.z_lr for c in conditions]),
        {name: joined([c.maps[name] for c in conditions]) for name in first.maps},
        guidance=first.guidance,
        gains=None
        if first.gains is None
        else joined([c.gains for c in conditions if c.gains is not None]),
    )


def crop_condition(condition: Condition, window: Window) -> Condition:
    """The part of a condition that a window sees; its edges must divide by every map's factor."""
    height = condition.z_lr.shape[-2]

    def cut(x: Tensor) -> Tensor:
        return window.divided(height // x.shape[-2]).cut(x)

    attention = condition.attention
    return Condition(
        cut(condition.z_lr),
        {name: cut(value) for name, value in condition.maps.items()},
        None if attention is None else cut(attention),
        condition.guidance,
        condition.gains,
    )


def build_config(kind: type[C], values: Mapping[str, Any]) -> C:
    """A configuration record from plain data, as a checkpoint's metadata or a recipe holds it.

    Raises ``ValueError`` for an unknown name or a value that is not of its type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind.__name__} is no table of settings")
    hints = get_type_hints(kind)
    unknown = set(values) - {f.name for f in fields(kind)}
    if unknown:
        raise ValueError(f"unknown settings for {kind.__name__}: {', '.join(sorted(unknown))}")
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    for key, value in given.items():
        if not is_of(value, hints[key]):
            allowed = get_args(hints[key]) if get_origin(hints[key]) is Literal else ()
            use = f"use {', '.join(allowed)}" if allowed else "it has another type"
            raise ValueError(f"{key} = {value!r}: {use}")
    return kind(**given)


def is_of(value: object, hint: Any) -> bool:
    """Whether plain data is of a type that a configuration record uses."""
    outer, inner = get_origin(hint), get_args(hint)
    if outer is Literal:
        return value in inner
    if outer is tuple:
        kinds = inner[:1] * len(value) if isinstance(value, tuple) and ... in inner else inner
        return (
            isinstance(value, tuple)
            and len(value) == len(kinds)
            and all(is_of(v, k) for v, k in zip(value, kinds, strict=True))
        )
    if outer is not None and issubclass(outer, Mapping):
        return isinstance(value, Mapping) and all(
            is_of(k, inner[0]) and is_of(v, inner[1]) for k, v in value.items()
        )
    if hint is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and abs(cast(float, value)) <= LARGEST
    return type(value) is hint
