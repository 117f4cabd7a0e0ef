"""Other people's networks that turn one picture into another, told from their tensors by spandrel.

Every architecture of spandrel is known, so any single-image file of OpenModelDB works. The only
place that imports it; it is handed tensors, never a file.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.weights.structures import identify

#: spandrel's ImageModelDescriptor, which has no types: called with (1, 3, h, w) in [0, 1] it pads,
#: runs ``model`` and gives (1, 3, H, W) in [0, 1].
Network: TypeAlias = Any

#: Keys that only networks for several frames of a video have: they estimate motion.
VIDEO = ("spynet.", "flownet.", "pcd_align.", "propagation.")


def image_network(state: Mapping[str, Tensor], name: str) -> Network:
    """The network that tensors make up, in fp32 on the CPU, in eval mode; 3 channels in and out.

    Raises ``WeightsError`` for tensors that make up none, ``UsageError`` for a network that does
    not turn one colour picture into another.
    """
    from spandrel import ImageModelDescriptor, ModelLoader

    if any(key.removeprefix("generator.").startswith(VIDEO) for key in state):
        raise UsageError(f"{name} is a network for video: it needs several frames at once")
    try:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):
            found = ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except Exception as error:  # spandrel's own errors, and whatever a wrong file ends in
        what = identify(state).description
        raise WeightsError(f"{name} is no network that spandrel knows: it is {what}") from error
    if not isinstance(found, ImageModelDescriptor):
        raise UsageError(f"{name} fills holes ({found.architecture.name}); it needs a mask")
    check_channels(found, name)
    for key, value in found.model.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(f"{name} is damaged: {key} holds values that are not finite")
    return found.float().eval()


def check_channels(network: Network, name: str) -> None:
    """Refuse what does not take and give three channels."""
    channels = (network.input_channels, network.output_channels)
    if channels != (3, 3):
        kind = {(1, 1): "grey pictures only", (4, 4): "pictures with a fourth channel"}
        what = kind.get(channels, f"{channels[0]} channels in and {channels[1]} out")
        raise UsageError(f"{name} is made for {what}; a network for colour pictures is needed")
