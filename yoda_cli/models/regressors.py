"""Which gain regressor judges a model: the file asked for, or the packaged one of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.files.paths import is_file
from yoda_cli.models.gain import Shape, load_regressor
from yoda_cli.models.model import Model
from yoda_cli.weights.entries import PACKAGE
from yoda_cli.weights.tensors import read_tensors

LOOKED_AT = 64  # values of each tensor: training changes them all, and files have gigabytes
DIGITS = 16
BESIDE = "restorer."  # makes the base of damaged pictures: no step's gain depends on it


def with_judge(model: Model, options: UpscaleOptions) -> Model:
    """``model`` with its gain regressor: the file asked for, or the packaged one if it has any."""
    path = PACKAGE / "checkpoints" / f"{model.name}-gain.safetensors"
    if options.regressor is not None:
        path = Path(options.regressor)
    elif Path(options.model).suffix or not is_file(path):
        return model
    return replace(model, judge_of=load_regressor(path, shape_of(model), model.device).judge)


def shape_of(model: Model) -> Shape:
    """What a regressor of ``model`` is made for."""
    net = model.backbone
    tensors = [read_tensors(path) for path in model.files] or [net.state_dict()]
    return Shape(
        model.name, net.geometry.z_channels, net.schedule.num_steps, digest_of(*tensors)
    )  # fmt: skip


def digest_of(*files: Mapping[str, Tensor]) -> str:
    """What tells weights from others of the same network: a hash of every tensor's name and shape,
    and of values that lie evenly in it. What lies ``BESIDE`` the chain is left out."""
    digest = hashlib.sha256()
    for state in files:
        for name, tensor in sorted(state.items()):
            if name.startswith(BESIDE):
                continue
            digest.update(f"{name} {tuple(tensor.shape)} ".encode())
            digest.update(values_of(tensor).tobytes())
    return digest.hexdigest()[:DIGITS]


def values_of(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """``LOOKED_AT`` of its values, or all if there are fewer, as little-endian fp32."""
    flat = tensor.detach().reshape(-1)
    count = min(len(flat), LOOKED_AT)
    places = torch.arange(count) * len(flat) // max(count, 1)
    found = flat[places.to(flat.device)].float().cpu().numpy()
    return found.astype("<f4")
