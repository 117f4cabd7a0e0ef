"""Attention sources: LR image → A in [0, 1]. The tables are the one place a source is registered.

Every source takes (1, 3, h, w) in [0, 1] and gives (1, 1, h, w) in [0, 1]. Those in ``HEADED`` need
weights and have several heads. ``learned`` is not here: it comes with the checkpoint, in
``Condition.attention``. Nothing is imported before a source is used: the command line reads the
names alone, and timm takes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AttentionSource = Callable[["Tensor"], "Tensor"]


def _classic(name: str, lr: Tensor) -> Tensor:
    found: Tensor = getattr(import_module(f"{__name__}.classic"), name)(lr)
    return found


SOURCES: dict[str, AttentionSource] = {
    name: partial(_classic, name) for name in ("uniform", "gaussian", "edge", "sift")
}


class Headed(NamedTuple):
    """A source with weights and heads: the registry's file, and the module here that reads it.

    The module has ``load(path, device, **told)``, which gives LR image → (1, heads, h, w) in
    [0, 1], and ``is_windowed(height, width, **told)``, whether it sees such a picture in windows.
    """

    file: str
    module: str
    told: Mapping[str, Any]

    def load(self, path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        """The network behind the source."""
        network: Callable[[Tensor], Tensor] = self._own.load(path, device=device, **self.told)
        return network

    def is_windowed(self, height: int, width: int) -> bool:
        """Whether a picture of this size is seen in windows."""
        return bool(self._own.is_windowed(height, width, **self.told))

    @property
    def _own(self) -> Any:
        return import_module(f"{__name__}.{self.module}")


HEADED: dict[str, Headed] = {
    "dino-vits8": Headed("dino_deitsmall8_pretrain.pth", "dino", {"patch": 8}),
    "dino-vits16": Headed("dino_deitsmall16_pretrain.pth", "dino", {"patch": 16}),
    "dino-resnet50": Headed("dino_resnet50_pretrain.pth", "resnet", {"cheap": False}),
    "dino-resnet50-cam": Headed("dino_resnet50_pretrain.pth", "resnet", {"cheap": True}),
}

LEARNED = "learned"
#: Every name that ``--attention`` takes, in the order that a person is told.
NAMES = (LEARNED, *SOURCES, *HEADED)
