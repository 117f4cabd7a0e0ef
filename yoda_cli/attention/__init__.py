"""Attention sources: LR image → A in [0, 1]. The table is the one place a source is registered.

Every source takes (1, 3, h, w) in [0, 1] and gives (1, 1, h, w) in [0, 1]. ``learned`` is not
here: it comes with the checkpoint, in ``Condition.attention``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from yoda_cli.attention.classic import edge, gaussian, sift, uniform

AttentionSource = Callable[[Tensor], Tensor]

SOURCES: dict[str, AttentionSource] = {
    "uniform": uniform,
    "gaussian": gaussian,
    "edge": edge,
    "sift": sift,
}
LEARNED = "learned"
