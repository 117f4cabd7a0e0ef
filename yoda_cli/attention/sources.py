"""From the name of an attention source to the function that makes A, its weights fetched first.

A source is one of ``SOURCES`` (no weights), one of ``HEADED`` (a DINO backbone with several heads),
or the path of a grey picture. ``learned`` is not here: it comes with the checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from yoda_cli.attention import HEADED, LEARNED, NAMES, SOURCES, AttentionSource
from yoda_cli.attention.heads import MAX, aggregate, check_heads
from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.files.paths import is_file
from yoda_cli.images import read_picture
from yoda_cli.weights import Cache, Watch, load_registry, obtain

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FREE = ", ".join([LEARNED, *SOURCES])


@dataclass(frozen=True)
class Source:
    """``attend``: (1, 3, h, w) → A (1, 1, h, w). ``heads``: → (1, heads, h, w), where it has them.

    ``size`` (h, w) is that of a painted picture.
    """

    name: str
    attend: AttentionSource
    heads: Callable[[Tensor], Tensor] | None = None
    size: tuple[int, int] | None = None

    def notice(self, lr: Tensor) -> str | None:
        """What a person should know about this source on this picture."""
        h, w = lr.shape[-2:]
        if self.heads is not None and HEADED[self.name].is_windowed(h, w):
            return f"{self.name} saw this picture in overlapping windows, at native scale"
        if self.size is None or self.size == (h, w):
            return None
        height, width = self.size
        return f"the map {self.name} is {width}×{height}; it was resized to {w}×{h}"


def find_source(
    name: str, heads: str | None, device: torch.device, watch: Watch | None = None
) -> Source:
    """The source called ``name``; downloads its weights if need be, saying so beforehand.

    ``heads`` is ``max``, ``avg`` or a number, None for ``max``; an error where there are none.
    """
    if heads is not None:
        check_heads(heads)
    if name in HEADED:
        return dino_source(name, heads or MAX, device, watch or Watch())
    if heads is not None:
        raise UsageError(f"the source {name} has no heads; these do: {', '.join(HEADED)}")
    if name in SOURCES:
        return Source(name, SOURCES[name])
    path = Path(name)
    if is_file(path):
        return painted_source(path, path.stat().st_mtime_ns)
    if not path.suffix:
        known = ", ".join(NAMES)
        raise UsageError(f"unknown attention source {name!r}; use {known}, or a grey picture")
    return painted_source(path, 0)  # which says what is wrong with it


def dino_source(name: str, heads: str, device: torch.device, watch: Watch) -> Source:
    """A DINO backbone's source."""
    try:
        path = obtain(HEADED[name].file, load_registry(), Cache.default(), watch)
    except WeightsError as error:
        raise WeightsError(f"{error}; sources that need no download: {FREE}") from error
    network = _loaded(name, path, path.stat().st_mtime_ns, device)
    return Source(name, lambda lr: aggregate(network(lr), heads), network)


@lru_cache(maxsize=2)
def _loaded(
    name: str, path: Path, changed: int, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """The network of a source, kept for the next picture while its file stays as it is."""
    return HEADED[name].load(path, device)


@lru_cache(maxsize=2)
def painted_source(path: Path, changed: int) -> Source:
    """A person's own grey picture: white is refined first. Kept while its file stays as it is."""
    grey = read_picture(path).rgb.mean(1, keepdim=True)

    def attend(lr: Tensor) -> Tensor:
        if grey.shape[-2:] == lr.shape[-2:]:
            return grey.clamp(0, 1)
        import torch.nn.functional as F

        return F.interpolate(grey, lr.shape[-2:], mode="bilinear", antialias=True).clamp(0, 1)

    return Source(os.fspath(path), attend, size=(grey.shape[-2], grey.shape[-1]))
