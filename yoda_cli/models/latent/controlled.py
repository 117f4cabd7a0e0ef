"""A U-Net of Stable Diffusion 2 under a ControlNet: the networks of DiffBIR and of SeeSR.

Its scale is 1: the "LR image" is the VAE code of a restored picture, of four channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yoda_cli.diffusion.schedule import NoiseSchedule, Prediction, make_schedule
from yoda_cli.models.base import Backbone, Condition, Guidance, predict_clipped
from yoda_cli.models.nets import ldm
from yoda_cli.models.nets.filling import Named, check_fit, fill_skeleton, skeleton
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


class ControlledUNet(Backbone):
    """The denoising U-Net and its ControlNet.

    It begins with shapes only: ``fill`` brings the weights, ``unload`` frees them. ``offloaded``
    keeps them in the machine's memory and each network on the device only while it runs.
    """

    geometry = Geometry(
        scale=1, stride=8, halo=16, plan_halo=16, pixel_bytes=256 << 10,
        z_channels=LATENT, in_channels=LATENT,
    )  # fmt: skip

    def __init__(self, design: Design, prediction: Prediction = "eps") -> None:
        super().__init__()
        self.design = design
        self.unet: nn.Module = skeleton(design.make_unet)
        self.control: nn.Module = skeleton(design.make_control)
        self.prediction: Prediction = prediction
        self.schedule = make_latent_schedule(prediction)
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
        """The published name of a tensor of ``unet`` or ``control``."""
        return self.design.unet_name if part == "unet" else self.design.control_name

    def check(self, part: str, state: Mapping[str, Tensor], name: str) -> None:
        """Refuse tensors that are not those of ``unet`` or ``control``."""
        check_fit(getattr(self, part), self.named(part), state, name)

    def fill(
        self, part: str, state: Mapping[str, Tensor], name: str,
        device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        """Give ``unet`` or ``control`` its weights."""
        self.check(part, state, name)
        fill_skeleton(getattr(self, part), self.named(part), state, name, device, dtype)

    def unload(self) -> None:
        """Give all weights back; shapes stay."""
        self.to("meta")

    @torch.no_grad()
    def encode(self, lr: Tensor, strength: float | Tensor = 0.0) -> Condition:
        """``lr`` is a latent (B, 4, h, w); ``strength`` is not read."""
        return Condition(lr.float(), {"hint": self.design.make_hint(lr.float())})

    def decode(self, z_0: Tensor, condition: Condition) -> Tensor:
        """Nothing: the VAE belongs to the picture, not to the window."""
        return z_0

    def to_z(self, hr: Tensor, condition: Condition) -> Tensor:
        return hr

    def predict(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        z_0 = predict_clipped(self, z_t, t, condition, mask, 0.0)
        return z_0.lerp(condition.z_lr, _guidance(condition).fidelity)

    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        """The raw output, with classifier-free guidance where there is any."""
        guide, hint = _guidance(condition), condition.maps["hint"]
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


def _guidance(condition: Condition) -> Guidance:
    if condition.guidance is None:
        raise ValueError("a condition of latents needs its guidance: the text states at least")
    return condition.guidance
