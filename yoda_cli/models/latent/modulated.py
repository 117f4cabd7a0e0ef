"""A U-Net of Stable Diffusion 2 modulated by a time-aware encoder: StableSR's networks.

The encoder turns the code of the enlarged picture and the time into feature maps, so it runs
again at every step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yoda_cli.diffusion.schedule import Prediction
from yoda_cli.models.backbone import predict_clipped
from yoda_cli.models.base import Condition
from yoda_cli.models.latent.denoising import (
    NUM_STEPS,
    LatentDenoiser,
    guidance_of,
    make_latent_schedule,
)
from yoda_cli.models.nets import ldm
from yoda_cli.models.nets import stablesr as nets
from yoda_cli.models.nets.filling import skeleton


class ModulatedDenoiser(LatentDenoiser):
    """The denoising U-Net, ``unet``, and its encoder, ``encoder`` (arXiv:2305.07015, section 3)."""

    def __init__(
        self, unet: ldm.UNetConfig, encoder: nets.EncoderConfig, prediction: Prediction = "eps"
    ) -> None:
        super().__init__(
            {
                "unet": lambda key: nets.modulated_unet_name(key, unet),
                "encoder": nets.encoder_name,
            }
        )
        maps = encoder.out_channels
        self.unet: nn.Module = skeleton(lambda: nets.ModulatedUNet(unet, maps))
        self.encoder: nn.Module = skeleton(lambda: nets.TimeAwareEncoder(encoder))
        self.prediction: Prediction = prediction
        # The network that predicts v was not tuned at a zero terminal SNR either.
        self.schedule = make_latent_schedule("eps")

    @torch.no_grad()
    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """``lr`` is a latent (B, 4, h, w); ``strength`` is not read."""
        return Condition(lr.float())

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        return predict_clipped(self, z_t, t, condition, mask, 0.0)

    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        """The raw output, with classifier-free guidance where there is any."""
        guide = guidance_of(condition)
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
