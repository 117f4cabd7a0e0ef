"""What the networks of every latent family share: shapes first, weights while they are needed.

A family's denoiser is a U-Net of Stable Diffusion 2 and one network beside it. Its scale is 1: the
"LR image" is the VAE code of a restored picture, of four channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from yoda_cli.diffusion.schedule import NoiseSchedule, Prediction, make_schedule
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.base import Condition, Guidance
from yoda_cli.models.nets.filling import Named, check_fit, fill_skeleton
from yoda_cli.tiling.geometry import Geometry

NUM_STEPS = 1000
BETAS = (0.00085, 0.012)
LATENT = 4
FACTOR = 8  # image pixels to a latent's side


def make_latent_schedule(prediction: Prediction) -> NoiseSchedule:
    """Stable Diffusion's chain; networks that predict v were tuned at a zero terminal SNR."""
    start, end = BETAS
    return make_schedule(
        "scaled_linear", NUM_STEPS, beta_start=start, beta_end=end,
        zero_terminal_snr=prediction == "v",
    )  # fmt: skip


class LatentDenoiser(Backbone):
    """Two networks that begin as shapes: ``fill`` brings the weights, ``unload`` frees them.

    ``names`` turn the tensors' own names into the published ones, by the attribute that holds the
    network. ``offloaded`` keeps the weights in the machine's memory, and each network on the device
    only while it runs.
    """

    geometry = Geometry(
        scale=1, stride=8, halo=16, plan_halo=16, pixel_bytes=256 << 10,
        z_channels=LATENT, in_channels=LATENT,
    )  # fmt: skip

    def __init__(self, names: Mapping[str, Named]) -> None:
        super().__init__()
        self.names = names
        self.offloaded = False

    @contextmanager
    def visiting(self, part: nn.Module, device: torch.device) -> Iterator[nn.Module]:
        """``part`` on ``device``; where it is offloaded, only while it is used."""
        if not self.offloaded:
            yield part
            return
        try:
            yield part.to(device)
        finally:  # after an error too: what memory there is must not stay taken
            part.to("cpu")

    @property
    def is_empty(self) -> bool:
        """Whether there are shapes only."""
        return any(parameter.is_meta for parameter in self.parameters())

    def check(self, part: str, state: Mapping[str, Tensor], name: str) -> None:
        """Refuse tensors that are not those of ``part``; ``name`` is their file's."""
        check_fit(self.get_submodule(part), self.names[part], state, name)

    def fill(
        self, part: str, state: Mapping[str, Tensor], name: str,
        device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        """Give ``part`` its weights."""
        self.check(part, state, name)
        fill_skeleton(self.get_submodule(part), self.names[part], state, name, device, dtype)

    def unload(self) -> None:
        """Give all weights back; shapes stay."""
        self.to("meta")

    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        """Nothing: the VAE belongs to the picture, not to the window."""
        return z_0

    def to_z(self, hr: Tensor, condition: Condition) -> Tensor:
        return hr


def guidance_of(condition: Condition) -> Guidance:
    """What steers; programs that make a condition of their own must give it."""
    if condition.guidance is None:
        raise ValueError("a condition of latents needs its guidance: the text states at least")
    return condition.guidance
