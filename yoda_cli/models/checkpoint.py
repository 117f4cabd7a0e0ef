"""One .safetensors file that holds everything needed to run a network: weights fp16, metadata.

The metadata key ``yoda`` is JSON: format, backbone, net (its configuration), and card (licence,
training facts, defaults). Nothing is executed while reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from yoda_cli.config import SampleDefaults
from yoda_cli.errors import WeightsError
from yoda_cli.files import make_folder, write_atomically
from yoda_cli.files.paths import is_file, is_there
from yoda_cli.models import BACKBONES
from yoda_cli.models.base import build_config
from yoda_cli.models.model import wrong_default

if TYPE_CHECKING:
    from torch import Tensor, nn

    from yoda_cli.models.backbone import Backbone

FORMAT = 1
LARGEST = 1 << 16  # of a network's settings: widths, blocks, steps
#: What making a network of senseless numbers ends in.
UNBUILDABLE = (
    ValueError, TypeError, KeyError, IndexError, ArithmeticError, AssertionError, RuntimeError,
    MemoryError, SafetensorError,
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself."""

    backbone: str
    net: Mapping[str, Any]
    card: Mapping[str, Any]


def read_header(path: Path) -> Header:
    """The metadata of a yoda checkpoint."""
    check_kind(path)
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise WeightsError(f"no such checkpoint: {path}") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable .safetensors file: {error}") from error
    try:
        record = json.loads(metadata["yoda"])
        header = Header(record["backbone"], record["net"], record["card"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} has no yoda metadata, so its network is unknown") from error
    if record.get("format") != FORMAT:
        raise WeightsError(f"{path} has format {record.get('format')!r}; this yoda reads {FORMAT}")
    if not (isinstance(header.backbone, str) and header.backbone in BACKBONES):
        raise WeightsError(f"{path} needs the backbone {header.backbone!r}, which is unknown here")
    check_card(header.card, path)
    return header


def check_kind(path: Path) -> None:
    """Refuse a pipe or a device: what opens files of tensors waits for it, deaf to Ctrl-C."""
    if is_there(path) and not is_file(path):
        raise WeightsError(f"{path} is no regular file")


def has_header(path: Path) -> bool:
    """Whether a .safetensors file is one of ours; one that cannot be read is not."""
    if not is_file(path):
        return False
    try:
        with safe_open(path, "np") as file:
            return "yoda" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def check_card(card: object, path: Path) -> None:
    """Refuse a card whose parts are not what others will read them as."""
    training = card.get("training", {}) if isinstance(card, Mapping) else None
    options = training.get("options", {}) if isinstance(training, Mapping) else None
    degrade = options.get("degrade", 0) if isinstance(options, Mapping) else None
    if not isinstance(degrade, (int, float)):
        raise WeightsError(f"{path} cannot be used: its card is not made as a card is")


def defaults_of(header: Header, path: Path) -> SampleDefaults:
    """How a checkpoint says that it likes to be sampled."""
    try:
        defaults = build_config(SampleDefaults, header.card.get("defaults", {}))
    except ValueError as error:
        raise WeightsError(f"{path}: the defaults in its card cannot be used: {error}") from error
    if wrong := wrong_default(defaults):
        raise WeightsError(f"{path}: the defaults in its card cannot be used: {': '.join(wrong)}")
    return defaults


def load_checkpoint(path: Path) -> tuple[Backbone, Header]:
    """Build the network a checkpoint describes and fill it, in fp32 and eval mode."""
    header = read_header(path)
    numbers = header.net.values() if isinstance(header.net, Mapping) else ()
    if any(isinstance(number, int) and abs(number) > LARGEST for number in numbers):
        raise WeightsError(f"{path} cannot be used: a setting is above {LARGEST:,}")
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        with no_larger_than(state):
            net = BACKBONES[header.backbone](header.net)
    except UNBUILDABLE as error:
        raise WeightsError(f"{path} cannot be used: {error}") from error
    fill(net, state, str(path))
    return net, header


@contextmanager
def no_larger_than(state: Mapping[str, Tensor]) -> Iterator[None]:
    """End the making of a network once it has more parameters than ``state`` has tensors or values.

    A file of some bytes may describe a network that no machine can hold.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    count, values = len(state), sum(value.numel() for value in state.values())

    def check(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count, values
        if parameter is not None:
            count, values = count - 1, values - parameter.numel()
        if count < 0 or values < 0:
            raise ValueError("it describes a larger network than it holds")

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        hook.remove()


def fill(net: Backbone, state: Mapping[str, Tensor], name: str) -> None:
    """Load ``state`` into ``net``; every key must be there, fit, be known, and be finite."""
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
    net.load_state_dict(state)  # which converts as it copies
    net.eval()


def save_checkpoint(
    path: Path, *, backbone: str, net: Mapping[str, Any], state: Mapping[str, Tensor],
    card: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write weights (as fp16) and metadata beside ``path`` and rename."""
    import torch
    from safetensors.torch import save

    tensors = {
        key: value.detach().cpu().to(torch.float16 if value.is_floating_point() else value.dtype)
        .contiguous()
        for key, value in state.items()
    }  # fmt: skip
    record = {"format": FORMAT, "backbone": backbone, "net": dict(net), "card": dict(card)}
    data = save(tensors, metadata={"yoda": json.dumps(record, sort_keys=True)})
    make_folder(path.parent)
    write_atomically(path, data)
