"""Tensors of a published file into a network that was built without memory of its own.

The network is made on the meta device and its parameters are replaced by the file's, each in the
precision it will be used in: what is held at the peak is the network and one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from yoda_cli.errors import WeightsError

Net = TypeVar("Net", bound=nn.Module)

Named = Callable[[str], str]


def skeleton(make: Callable[[], Net]) -> Net:
    """``make()`` on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        net = make()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net.eval()


def check_fit(net: nn.Module, named: Named, state: Mapping[str, Tensor], name: str) -> None:
    """Refuse a ``state`` that is not exactly the network's, but for dimensions of 1.

    ``named`` turns the network's own names into those of ``state``.
    """
    own = {named(key): value.shape for key, value in net.state_dict().items()}
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"has the unknown {extra[0]}"
        raise WeightsError(
            f"{name} does not fit its network: it {what} ({len(missing) + len(extra)} such keys)"
        )
    for key, shape in own.items():
        found = state[key].shape
        if [n for n in found if n != 1] != [n for n in shape if n != 1]:
            raise WeightsError(
                f"{name} does not fit its network: {key} is {tuple(found)}, expected {tuple(shape)}"
            )


def fill_skeleton(
    net: nn.Module, named: Named, state: Mapping[str, Tensor], name: str,
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
) -> None:  # fmt: skip
    """Copy ``state``, which fits, into ``net``; every value must be finite."""
    filled = {}
    for key, empty in net.state_dict().items():
        value = state[named(key)].detach()
        if not bool(value.isfinite().all()):
            raise WeightsError(f"{name} is damaged: {named(key)} holds values that are not finite")
        filled[key] = value.reshape(empty.shape).to(device, dtype, copy=True)
    net.load_state_dict(filled, assign=True)
    for parameter in net.parameters():
        parameter.requires_grad_(False)


def build_filled(
    make: Callable[[], Net], named: Named, state: Mapping[str, Tensor], name: str,
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
) -> Net:  # fmt: skip
    """``make()`` in eval mode on ``device``, filled from ``state``."""
    net = skeleton(make)
    check_fit(net, named, state, name)
    fill_skeleton(net, named, state, name, device, dtype)
    return net
