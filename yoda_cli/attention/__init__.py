"""Attention sources: LR image → A in [0, 1]. The tables are the one place a source is registered.

Every source takes (1, 3, h, w) in [0, 1] and gives (1, 1, h, w) in [0, 1]. Those in ``HEADED`` need
weights and have several heads. ``learned`` is not here: it comes with the checkpoint, in
``Condition.attention``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from yoda_cli.attention.classic import edge, gaussian, sift, uniform

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AttentionSource = Callable[["Tensor"], "Tensor"]

SOURCES: dict[str, AttentionSource] = {
    "uniform": uniform,
    "gaussian": gaussian,
    "edge": edge,
    "sift": sift,
}

#: Sources with weights: the registry's file of each.
HEADED: dict[str, str] = {
    "dino-vits8": "dino_deitsmall8_pretrain.pth",
    "dino-vits16": "dino_deitsmall16_pretrain.pth",
    "dino-resnet50": "dino_resnet50_pretrain.pth",
    "dino-resnet50-cam": "dino_resnet50_pretrain.pth",
}

LEARNED = "learned"


def load_headed(name: str, path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network behind a source of ``HEADED``: LR image → (1, heads, h, w), each in [0, 1]."""
    if name.startswith("dino-vit"):
        from yoda_cli.attention import dino  # here: timm takes a second to import

        return dino.load(path, patch=int(name.removeprefix("dino-vits")), device=device)
    from yoda_cli.attention import resnet

    return resnet.load(path, device=device, cheap=name.endswith("-cam"))


def is_windowed(name: str, height: int, width: int) -> bool:
    """Whether a source of ``HEADED`` sees a picture of this size in windows."""
    if name.startswith("dino-vit"):
        from yoda_cli.attention import dino

        return dino.is_windowed(height, width, int(name.removeprefix("dino-vits")))
    from yoda_cli.attention import resnet

    return not name.endswith("-cam") and resnet.is_windowed(height, width)
