"""Published SR3 and SRDiff checkpoints, read as they are: no code in them is ever run.

The network's configuration is inferred from the tensors. Schedule buffers, which the published
files carry beside the weights, are dropped: our schedules are computed.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from yoda_cli.backbones import Backbone, sr3, srdiff
from yoda_cli.checkpoint import fill
from yoda_cli.errors import WeightsError

#: What a published file holds beside weights: the buffers of the schedule it was saved with.
SCHEDULE_BUFFERS = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    }
)
WRAPPERS = ("state_dict", "model", "params_ema", "params")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth``, ``.ckpt`` or ``.pt`` file, unwrapped, schedule buffers dropped."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"no such checkpoint: {path}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} was refused: it holds more than tensors, and code in it will not be run"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is not a readable checkpoint (truncated or damaged)") from error
    while isinstance(content, Mapping) and any(key in content for key in WRAPPERS):
        content = content[next(key for key in WRAPPERS if key in content)]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no table of weights")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    return {key: value for key, value in state.items() if key not in SCHEDULE_BUFFERS}


def load_reference(path: Path) -> Backbone:
    """The network of a published SR3 or SRDiff checkpoint, filled, in eval mode."""
    state = read_state(path)
    net = backbone_for(state, str(path))
    fill(net, state, str(path))
    return net


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
    raise WeightsError(f"{name} is neither an SR3 nor an SRDiff checkpoint")
