"""A U-Net of Stable Diffusion 2 modulated by a time-aware encoder: StableSR's networks.

Its scale is 1: the "LR image" is the VAE code of the enlarged picture, of four channels. The
encoder turns that code and the time into feature maps, so it runs again at every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from yoda_cli.diffusion.schedule import Prediction
from yoda_cli.models.base import Backbone, Condition, Guidance, predict_clipped
from yoda_cli.models.latent.controlled import LATENT, NUM_STEPS, make_latent_schedule
from yoda_cli.models.nets import ldm
from yoda_cli.models.nets import stablesr as nets
from yoda_cli.models.nets.filling import Named, check_fit, fill_skeleton, skeleton
from yoda_cli.tiling.geometry import Geometry


class ModulatedDenoiser(Backbone):
    """The denoising U-Net and its encoder (arXiv:2305.07015, section 3).

    It begins with shapes only: ``fill`` brings the weights, ``unload`` frees them. ``offloaded``
    keeps them in the machine's memory and each network on the device only while it runs.
    """

    geometry = Geometry(
        scale=1, stride=8, halo=16, plan_halo=16, pixel_bytes=256 << 10,
        z_channels=LATENT, in_channels=LATENT,
    )  # fmt: skip

    def __init__(
        self, unet: ldm.UNetConfig, encoder: nets.EncoderConfig, prediction: Prediction = "eps"
    ) -> None:
        super().__init__()
        self.config = unet
        maps = encoder.out_channels
        self.unet: nn.Module = skeleton(lambda: nets.ModulatedUNet(unet, maps))
        self.encoder: nn.Module = skeleton(lambda: nets.TimeAwareEncoder(encoder))
        self.prediction: Prediction = prediction
        # The network that predicts v was not tuned at a zero terminal SNR either.
        self.schedule = make_latent_schedule("eps")
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

    def named(self, part: str) -> Named:
        """The published name of a tensor of ``unet`` or ``encoder``."""
        if part == "encoder":
            return nets.encoder_name
        return lambda key: nets.modulated_unet_name(key, self.config)

    def check(self, part: str, state: Mapping[str, Tensor], name: str) -> None:
        """Refuse tensors that are not those of ``unet`` or ``encoder``."""
        check_fit(getattr(self, part), self.named(part), state, name)

    def fill(
        self, part: str, state: Mapping[str, Tensor], name: str,
        device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        """Give ``unet`` or ``encoder`` its weights."""
        self.check(part, state, name)
        fill_skeleton(getattr(self, part), self.named(part), state, name, device, dtype)

    def unload(self) -> None:
        """Give all weights back; shapes stay."""
        self.to("meta")

    @torch.no_grad()
    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """``lr`` is a latent (B, 4, h, w); ``strength`` is not read."""
        return Condition(lr.float())

    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        """Nothing: the VAE belongs to the picture, not to the window."""
        return z_0

    def to_z(self, hr: Tensor, condition: Condition) -> Tensor:
        return hr

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        return predict_clipped(self, z_t, t, condition, mask, 0.0)

    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        """The raw output, with classifier-free guidance where there is any."""
        guide = _guidance(condition)
        scale = guide.scale(int(t[0]), NUM_STEPS)
        prompt = guide.tokens["text"].expand(z_t.shape[0], -1, -1)
        if guide.negative is None or scale == 1:
            return self.run(z_t, t, prompt, condition.z_lr)
        texts = torch.cat([prompt, guide.negative["text"].expand_as(prompt)])
        wanted, unwanted = self.run(z_t, t, texts, condition.z_lr).float().chunk(2)
        return unwanted + scale * (wanted - unwanted)

    def run(self, z_t: Tensor, t: Tensor, texts: Tensor, z_lr: Tensor) -> Tensor:
        """One call of encoder and U-Net at times ``t`` (B,) in 1 … T.

        ``texts`` (k·B, L, C) are k prompts for every state: the maps are made once for all of
        them, and the result is (k·B, 4, h, w).
        """
        dtype = next(self.unet.parameters()).dtype
        z_t, texts, z_lr = z_t.to(dtype), texts.to(dtype), z_lr.to(dtype)
        times = texts.shape[0] // z_t.shape[0]
        with self.visiting(self.encoder, z_t.device) as encoder:
            maps = [f.repeat(times, 1, 1, 1) for f in encoder(z_lr, t - 1)]
        with self.visiting(self.unet, z_t.device) as unet:
            out: Tensor = unet(z_t.repeat(times, 1, 1, 1), (t - 1).repeat(times), texts, maps)
        return out


def _guidance(condition: Condition) -> Guidance:
    if condition.guidance is None:
        raise ValueError("a condition of latents needs its guidance: the text states at least")
    return condition.guidance
