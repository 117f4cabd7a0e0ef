"""What judges a region while it is sampled: the contract, and the regressor in a small file.

A regressor is trained on the trajectories of one model (``yoda train --recipe gain``) and refused
for any other. Nothing is executed while its file is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from yoda_cli.diffusion.adaptive import Gains
from yoda_cli.errors import WeightsError
from yoda_cli.files import make_folder, write_atomically
from yoda_cli.files.paths import is_file
from yoda_cli.models.checkpoint import check_kind
from yoda_cli.models.nets.gain import PATCH, GainNet
from yoda_cli.tiling.windows import Window

FORMAT = 2
KEY = "yoda-gain"
LARGEST_WIDTH, LARGEST_STRIDE = 64, 64


class Judge(Protocol):
    """Sees the estimates of one region in turn, and says what each gained; None for the first.

    ``z_0`` (1, C, H, W) is the unrefined picture outside the mask; ``t`` its time.
    """

    def __call__(self, z_0: Tensor, t: int) -> Gains | None: ...


@dataclass(frozen=True)
class RegionView:
    """What a judge may know of its region: where it lies on the picture's diffusion grid of
    ``size``, its unrefined picture (1, C, H, W), and how its states become pictures."""

    window: Window
    size: tuple[int, int]
    z_lr: Tensor
    decode: Callable[[Tensor], Tensor]


JudgeOf = Callable[[RegionView], Judge]


@dataclass(frozen=True)
class Shape:
    """What a regressor was made for: a model's name, the C of its diffusion space, its T, and what
    tells its ``weights`` from others."""

    model: str
    channels: int
    num_steps: int
    weights: str


@dataclass(frozen=True)
class Regressor:
    """A trained network of gains and what its file says of it."""

    net: GainNet
    shape: Shape
    card: Mapping[str, Any] = field(default_factory=dict)

    def judge(self, view: RegionView) -> Judge:
        """A judge of one region."""
        return Predicted(self, view.z_lr)


@dataclass
class Predicted:
    """Gains as the regressor sees them; what it saw of an estimate is kept for the next."""

    regressor: Regressor
    z_lr: Tensor
    before: Tensor | None = None
    unrefined: Tensor | None = None
    t: int = 0

    def __call__(self, z_0: Tensor, t: int) -> Gains | None:
        net, after = self.regressor.net, self.regressor.net.look(z_0.float())
        before, t_before, self.before, self.t = self.before, self.t, after, t
        if before is None:
            return None
        if self.unrefined is None:
            self.unrefined = net.look(self.z_lr.float())
        total = self.regressor.shape.num_steps
        times = torch.tensor([[t_before / total, t / total]], device=z_0.device)
        fidelity, realism = net.compare(before, after, self.unrefined, times)[0].tolist()
        return Gains(fidelity, realism)


def save_regressor(path: Path, regressor: Regressor) -> None:
    """Write weights and metadata beside ``path`` and rename."""
    net, shape = regressor.net, regressor.shape
    record = {
        "format": FORMAT, "model": shape.model, "channels": shape.channels,
        "num_steps": shape.num_steps, "weights": shape.weights, "width": net.cells.out_channels,
        "stride": net.cells.stride[0], "card": dict(regressor.card),
    }  # fmt: skip
    tensors = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    make_folder(path.parent)
    write_atomically(path, save(tensors, metadata={KEY: json.dumps(record, sort_keys=True)}))


def load_regressor(path: Path, wanted: Shape, device: torch.device) -> Regressor:
    """The regressor in ``path``. WeightsError where it is none, damaged, or another model's."""
    check_kind(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise WeightsError(f"no such gain regressor: {path}") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable .safetensors file: {error}") from error
    try:
        record = json.loads(metadata[KEY])
        if record["format"] != FORMAT:
            found = record["format"]
            raise WeightsError(f"{path} has format {found!r}; this yoda reads {FORMAT}")
        shape = Shape(
            str(record["model"]), int(record["channels"]), int(record["num_steps"]),
            str(record["weights"]),
        )  # fmt: skip
        width, stride, card = int(record["width"]), int(record["stride"]), dict(record["card"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no gain regressor") from error
    check_shape(path, shape, wanted)
    if not (1 <= width <= LARGEST_WIDTH and PATCH <= stride <= LARGEST_STRIDE):
        raise WeightsError(f"{path} is damaged: a width of {width}, a stride of {stride}")
    net = GainNet(shape.channels, width, stride)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        what = " ".join(str(error).split())[:160]
        raise WeightsError(f"{path} does not fit its network: {what}") from error
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise WeightsError(f"{path} is damaged: it holds values that are not finite")
    return Regressor(net.to(device).eval(), shape, card)


def is_regressor(path: Path) -> bool:
    """Whether a file holds a gain regressor."""
    if not is_file(path):
        return False
    try:
        with safe_open(path, "pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def check_shape(path: Path, found: Shape, wanted: Shape) -> None:
    """Refuse a regressor of another model."""
    if found.model != wanted.model:
        raise WeightsError(
            f"{path} judges the steps of model {found.model}, not of {wanted.model}: train one "
            f"with yoda train --recipe gain --model {wanted.model}"
        )
    if (found.channels, found.num_steps) != (wanted.channels, wanted.num_steps):
        raise WeightsError(
            f"{path} judges {found.channels} channels and {found.num_steps} steps; "
            f"{wanted.model} has {wanted.channels} and {wanted.num_steps}"
        )
    if found.weights != wanted.weights:
        raise WeightsError(
            f"{path} judges the steps of other weights of model {found.model}: train one with "
            f"yoda train --recipe gain --model {wanted.model}"
        )
