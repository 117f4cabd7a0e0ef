"""Published SR3 and SRDiff checkpoints, read as they are: no code in them is ever run.

The network's configuration is inferred from the tensors. Schedule buffers, which the published
files carry beside the weights, are dropped: our schedules are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from yoda_cli.errors import WeightsError
from yoda_cli.models import sr3, srdiff
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.checkpoint import fill
from yoda_cli.weights.structures import SCHEDULE_BUFFERS, identify
from yoda_cli.weights.tensors import read_tensors


def load_reference(path: Path) -> Backbone:
    """The network of a published SR3 or SRDiff checkpoint, filled, in eval mode."""
    return reference_of(read_tensors(path), str(path))


def reference_of(tensors: Mapping[str, Tensor], name: str) -> Backbone:
    """The same from the tensors of its file."""
    state = {k: v for k, v in tensors.items() if k not in SCHEDULE_BUFFERS}
    net = backbone_for(state, name)
    fill(net, state, name)
    return net


def is_diffusion(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of a network that is run step by step."""
    return any(key.startswith("denoise_fn.") for key in state)


def backbone_for(state: Mapping[str, Tensor], name: str) -> Backbone:
    """An empty network of the configuration that the tensors' shapes tell."""
    if "denoise_fn.noise_level_mlp.1.weight" in state:
        channels = state["denoise_fn.downs.0.weight"].shape[1]
        if channels != 6:
            raise WeightsError(
                f"{name} is an unconditional SR3 network ({channels} input channels); "
                "super-resolution needs one with 6"
            )
        return sr3.SR3(sr3.infer_config(state))
    if "denoise_fn.cond_proj.weight" in state and "rrdb.conv_first.weight" in state:
        return srdiff.SRDiff(srdiff.infer_config(state))
    raise WeightsError(
        f"{name} is {identify(state).description}; an SR3 or SRDiff network was expected"
    )
