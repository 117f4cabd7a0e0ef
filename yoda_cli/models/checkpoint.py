"""One .safetensors file that holds everything needed to run a network: weights fp16, metadata.

The metadata key ``yoda`` is JSON: format, backbone, net (its configuration), and card (licence,
training facts, defaults). Nothing is executed while reading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from yoda_cli.errors import WeightsError
from yoda_cli.files import make_folder, write_atomically
from yoda_cli.models import BACKBONES, Backbone

FORMAT = 1


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself."""

    backbone: str
    net: Mapping[str, Any]
    card: Mapping[str, Any]


def read_header(path: Path) -> Header:
    """The metadata of a yoda checkpoint."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise WeightsError(f"no such checkpoint: {path}") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable .safetensors file: {error}") from error
    try:
        record = json.loads(metadata["yoda"])
        header = Header(record["backbone"], record["net"], record["card"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} has no yoda metadata, so its network is unknown") from error
    if record.get("format") != FORMAT:
        raise WeightsError(f"{path} has format {record.get('format')!r}; this yoda reads {FORMAT}")
    if header.backbone not in BACKBONES:
        raise WeightsError(f"{path} needs the backbone {header.backbone!r}, which is unknown here")
    return header


def has_header(path: Path) -> bool:
    """Whether a .safetensors file is one of ours; one that cannot be read is not."""
    try:
        with safe_open(path, "pt") as file:
            return "yoda" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load_checkpoint(path: Path) -> tuple[Backbone, Header]:
    """Build the network a checkpoint describes and fill it, in fp32 and eval mode."""
    header = read_header(path)
    try:
        net = BACKBONES[header.backbone](header.net)
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (ValueError, TypeError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be used: {error}") from error
    fill(net, state, str(path))
    return net, header


def fill(net: Backbone, state: Mapping[str, Tensor], name: str) -> None:
    """Load ``state`` into ``net``; every key must be there, fit, be known, and be finite."""
    assert isinstance(net, nn.Module)
    own = net.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"has the unknown {extra[0]}"
        count = len(missing) + len(extra)
        raise WeightsError(f"{name} does not fit its network: it {what} ({count} such keys)")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise WeightsError(
                f"{name} does not fit its network: {key} is {tuple(value.shape)}, "
                f"expected {tuple(own[key].shape)}"
            )
        if value.is_floating_point() and not value.is_meta and not bool(value.isfinite().all()):
            raise WeightsError(f"{name} is damaged: {key} holds values that are not finite")
    net.load_state_dict({key: value.float() for key, value in state.items()})
    net.eval()


def save_checkpoint(
    path: Path, *, backbone: str, net: Mapping[str, Any], state: Mapping[str, Tensor],
    card: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write weights (as fp16) and metadata beside ``path`` and rename."""
    tensors = {
        key: value.detach().cpu().to(torch.float16 if value.is_floating_point() else value.dtype)
        .contiguous()
        for key, value in state.items()
    }  # fmt: skip
    record = {"format": FORMAT, "backbone": backbone, "net": dict(net), "card": dict(card)}
    data = save(tensors, metadata={"yoda": json.dumps(record, sort_keys=True)})
    make_folder(path.parent)
    write_atomically(path, data)
