"""Text states for prompts, kept in the cache folder: the text tower is read once for a prompt."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from yoda_cli.errors import OutputError, WeightsError
from yoda_cli.files import cache_folder, make_folder, write_atomically
from yoda_cli.models.nets.filling import build_filled
from yoda_cli.models.nets.text import UNUSED, TextTower, infer_text, tokenize

PREFIX = "model."  # of the tower's tensors in a published file


def load_text(state: Mapping[str, Tensor], name: str, heads: int = 0) -> TextTower:
    """The tower of OpenCLIP tensors, in fp32 on the CPU."""
    own = {
        key.removeprefix(PREFIX): value
        for key, value in state.items()
        if key.removeprefix(PREFIX) not in (*UNUSED, "attn_mask")
    }
    config = infer_text(own, heads or None)
    return build_filled(lambda: TextTower(config), lambda key: key, own, name)


def text_states(prompt: str, source: Path, load: Callable[[], TextTower]) -> Tensor:
    """States (1, 77, width) of ``prompt`` by the tower in ``source``, made once and kept."""
    stat = source.stat()
    question = f"{source.resolve()} {stat.st_size} {stat.st_mtime_ns} {prompt}"
    name = hashlib.sha256(question.encode(errors="surrogatepass")).hexdigest()[:32]
    record = _folder(name)
    if record is not None:
        with contextlib.suppress(OSError, SafetensorError, KeyError):
            kept: Tensor = load_file(record)["states"]
            return kept
    tower = load()
    with torch.inference_mode():
        states: Tensor = tower(tokenize([prompt])).clone()
    if record is not None:
        with contextlib.suppress(OutputError, SafetensorError):
            make_folder(record.parent)
            write_atomically(record, save({"states": states.contiguous()}))
    return states


def _folder(name: str) -> Path | None:
    try:
        return cache_folder() / "prompts" / f"{name}.safetensors"
    except WeightsError:  # no home, no cache: made every time
        return None
