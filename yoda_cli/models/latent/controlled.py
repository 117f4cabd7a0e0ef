"""A U-Net of Stable Diffusion 2 under a ControlNet: the networks of DiffBIR and of SeeSR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from yoda_cli.models.nets.filling import Named, skeleton

Tokens = Mapping[str, Tensor]  # states (B, L, C) that the networks attend to, by name


@dataclass(frozen=True)
class Design:
    """How a U-Net and its ControlNet are built, named and called.

    ``controls(control, z_t, t, tokens, hint)`` are the controls, fine to coarse, the middle's
    last; t (B,) counts from 0. ``keywords`` are what the U-Net is given beside the text.
    ``make_hint`` is the hint (B, c, h, w) of a latent that has no picture.
    """

    make_unet: Callable[[], nn.Module]
    make_control: Callable[[], nn.Module]
    unet_name: Named
    control_name: Named
    controls: Callable[[nn.Module, Tensor, Tensor, Tokens, Tensor], Sequence[Tensor]]
    keywords: Callable[[Tokens], dict[str, Any]] = lambda tokens: {}
    make_hint: Callable[[Tensor], Tensor] = lambda latent: latent


def diffbir_design(unet: ldm.UNetConfig, control: ldm.UNetConfig) -> Design:
    """The networks of DiffBIR (arXiv:2308.15070): the hint is a latent."""
    return Design(
        lambda: ldm.make_unet(unet),
        lambda: ldm.ControlNet(control),
        lambda key: ldm.unet_name(key, unet),
        lambda key: ldm.unet_name(key, control),
        lambda net, z_t, t, tokens, hint: net(z_t, t, tokens["text"], hint),
    )


class ControlledUNet(LatentDenoiser):
    """The denoising U-Net, ``unet``, and its ControlNet, ``control``."""

    def __init__(self, design: Design, prediction: Prediction = "eps") -> None:
        super().__init__({"unet": design.unet_name, "control": design.control_name})
        self.design = design
        self.unet: nn.Module = skeleton(design.make_unet)
        self.control: nn.Module = skeleton(design.make_control)
        self.prediction: Prediction = prediction
        self.schedule = make_latent_schedule(prediction)

    @torch.no_grad()
    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """``lr`` is a latent (B, 4, h, w); ``strength`` is not read."""
        return Condition(lr.float(), {"hint": self.design.make_hint(lr.float())})

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        z_0 = predict_clipped(self, z_t, t, condition, mask, 0.0)
        return z_0.lerp(condition.z_lr, guidance_of(condition).fidelity)

    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        """The raw output, with classifier-free guidance where there is any."""
        guide, hint = guidance_of(condition), condition.maps["hint"]
        scale = guide.scale(int(t[0]), NUM_STEPS)
        wanted = _repeated(guide.tokens, z_t)
        if guide.negative is None or scale == 1:
            return self.run(z_t, t, wanted, hint, guide.strength)
        unwanted = _repeated(guide.negative, z_t)
        both = self.run(
            torch.cat([z_t, z_t]), torch.cat([t, t]),
            {name: torch.cat([wanted[name], unwanted[name]]) for name in wanted},
            torch.cat([hint, hint]), guide.strength,
        )  # fmt: skip
        towards, away = both.float().chunk(2)
        return away + scale * (towards - away)

    def run(
        self, z_t: Tensor, t: Tensor, tokens: Tokens, hint: Tensor,
        strength: float | Sequence[float] = 1.0,
    ) -> Tensor:  # fmt: skip
        """One call of ControlNet and U-Net at times ``t`` (B,) in 1 … T."""
        dtype = next(self.control.parameters()).dtype
        z_t, hint = z_t.to(dtype), hint.to(dtype)
        tokens = {name: states.to(dtype) for name, states in tokens.items()}
        with self.visiting(self.control, z_t.device) as control:
            controls = self.design.controls(control, z_t, t - 1, tokens, hint)
        strengths = [strength] * len(controls) if isinstance(strength, (int, float)) else strength
        if len(strengths) != len(controls):
            raise ValueError(f"{len(controls)} controls need as many strengths")
        scaled = [c * s for c, s in zip(controls, strengths, strict=True)]
        with self.visiting(self.unet, z_t.device) as unet:
            out: Tensor = unet(
                z_t, t - 1, tokens["text"],
                down_block_additional_residuals=tuple(scaled[:-1]),
                mid_block_additional_residual=scaled[-1],
                return_dict=False,
                **self.design.keywords(tokens),
            )[0]  # fmt: skip
        return out


def _repeated(tokens: Tokens, z_t: Tensor) -> dict[str, Tensor]:
    """The same states for every state of a batch."""
    return {name: states.expand(z_t.shape[0], -1, -1) for name, states in tokens.items()}
