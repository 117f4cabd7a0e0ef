"""AddSR (arXiv:2404.01717) and SeeSR (arXiv:2311.16518): Stable Diffusion 2 steered by a picture.

The ControlNet sees the enlarged LR picture, and further transformers attend to what DAPE makes of
it. AddSR goes on in one to four steps: between them the picture made so far is decoded and mixed
with the LR picture, and the mix is what ControlNet and DAPE see next (prediction-based
self-refinement). Where the reference draws the picture's code from its posterior, the mean is
taken; where it pads to 8 pixels, borders are repeated to 64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.errors import WeightsError
from yoda_cli.models.base import Condition, Guidance
from yoda_cli.models.latent.components import TEXT, VAE, Components, Kept
from yoda_cli.models.latent.controlled import ControlledUNet, Design, Tokens
from yoda_cli.models.latent.denoising import FACTOR
from yoda_cli.models.latent.family import Codec, Steering
from yoda_cli.models.latent.lending import Networks
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.latent.text import PREFIX as TEXT_PREFIX
from yoda_cli.models.nets import seesr
from yoda_cli.models.nets.filling import build_filled
from yoda_cli.tiling.grids import replicate

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: what DAPE was trained on
FP32 = 4  # bytes of a number: autoencoder and DAPE are not run in less
WANTED = {  # the beginning of a tensor's name, and the file that has it, by role
    "unet": ("up_blocks.1.image_attentions.", "the U-Net of AddSR or SeeSR"),
    "controlnet": ("controlnet_cond_embedding.", "the ControlNet of AddSR or SeeSR"),
    "ram": ("visual_encoder.patch_embed.", "RAM with Swin-L"),
    "dape": ("visual_encoder.layers.0.blocks.0.attn.qkv.lora_A", "DAPE"),
    "diffusion": (f"{VAE}decoder.", "Stable Diffusion 2"),
}


def refined_picture(decoded: Tensor, lr: Tensor, weight: float) -> Tensor:
    """What steers the next step: ``decoded`` in [-1, 1], clipped, mixed with enlarged ``lr``."""
    made = decoded.clamp(-1, 1) / 2 + 0.5
    return weight * made + (1 - weight) * lr


def dape_input(
    picture: Tensor, side: int, mode: Literal["bicubic", "bilinear"] = "bicubic"
) -> Tensor:
    """``picture`` in [0, 1] squeezed to a square and normalised.

    Cubic overshoots are kept and nothing is smoothed first, as published.
    """
    square = F.interpolate(picture, (side, side), mode=mode)
    mean, std = (picture.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (square - mean) / std


def picture_hint(picture: Tensor, height: int, width: int) -> Tensor:
    """A picture in [0, 1], repeated up to (height, width), on the grid of latents: windows of
    latents cut it, too."""
    return F.pixel_unshuffle(replicate(picture, height, width), FACTOR)


def seesr_design(unet: seesr.SeeSRConfig, control: seesr.SeeSRConfig) -> Design:
    """The networks of SeeSR: the hint is a picture, tokens are those of the text and its own."""

    def keywords(tokens: Tokens) -> dict[str, dict[str, Tensor]]:
        return {"cross_attention_kwargs": {seesr.TOKENS: tokens["image"]}}

    def controls(
        net: nn.Module, z_t: Tensor, t: Tensor, tokens: Tokens, hint: Tensor
    ) -> list[Tensor]:
        picture = F.pixel_shuffle(hint, FACTOR)
        down, middle = net(
            z_t, t, tokens["text"], picture, return_dict=False, **keywords(tokens)
        )  # fmt: skip
        return [*down, middle]

    def make_hint(latent: Tensor) -> Tensor:
        return latent.new_zeros(len(latent), 3 * FACTOR**2, *latent.shape[-2:])

    return Design(
        lambda: seesr.make_unet(unet), lambda: seesr.make_control(control),
        seesr.seesr_name, seesr.seesr_name, controls, keywords, make_hint,
    )  # fmt: skip


class AddSR:
    """Files by role: ``unet``, ``controlnet``, ``ram`` (Swin-L), ``dape`` (what adapts it),
    ``diffusion`` (Stable Diffusion 2: autoencoder and text), ``stage1`` or none.

    ``net`` has the networks' shapes from the start and their weights inside ``denoiser``.
    """

    wraps = False
    unread = ()

    def __init__(
        self, name: str, settings: FamilySettings, files: Mapping[str, Path],
        device: torch.device, precision: torch.dtype,
    ) -> None:  # fmt: skip
        """Look at the files, so that a wrong one is refused before any work."""
        self.name, self.settings, self.files = name, settings, files
        self.parts = Components(name, settings, files, device, precision)
        for role, (beginning, what) in WANTED.items():
            if not any(key.startswith(beginning) for key in self.parts.tensors(role, "")):
                raise WeightsError(self.parts.unexpected(role, what))
        unet, control = self.parts.tensors("unet", ""), self.parts.tensors("controlnet", "")
        one, other = (self.config_of(state) for state in (unet, control))
        if replace(other, stem=()) != one:
            what = f"the partner of {files['unet']}"
            raise WeightsError(self.parts.unexpected("controlnet", what))
        text = self.parts.tensors("diffusion", TEXT).get(f"{TEXT_PREFIX}ln_final.weight")
        if text is None or len(text) != one.context:  # Stable Diffusion 1.x
            raise WeightsError(self.parts.unexpected("diffusion", "Stable Diffusion 2"))
        self.net = ControlledUNet(seesr_design(one, other), settings.prediction)
        self.net.check("unet", unet, str(files["unet"]))
        self.net.check("control", control, str(files["controlnet"]))
        self.networks = Networks(
            self.parts,
            self.net,
            {
                "unet": partial(self.source, "unet"),
                "control": partial(self.source, "controlnet"),
            },
        )
        self._dape = Kept(self.read_dape, lambda: self.parts.has_room)

    def config_of(self, state: Mapping[str, Tensor]) -> seesr.SeeSRConfig:
        """The shape of a U-Net or ControlNet; heads are not in the tensors."""
        return seesr.infer_seesr(state, self.settings.head_dim)

    def source(self, role: str) -> tuple[Mapping[str, Tensor], str]:
        """The tensors of a network, and the name of their file."""
        return self.parts.tensors(role, ""), str(self.files[role])

    def check_memory(self) -> None:
        """Of U-Net and ControlNet; autoencoder and DAPE are needed beside them."""
        self.networks.check_memory(self.beside())

    def beside(self) -> int:
        """Bytes of what runs between the steps."""
        others = (self.dape_tensors(), self.parts.tensors("diffusion", VAE))
        return FP32 * sum(value.numel() for state in others for value in state.values())

    def restore(self, lr: Tensor, height: int, width: int) -> Tensor:
        """The enlarged picture; a restorer's where one was asked for."""
        return self.parts.restore(lr, height, width)

    def codec(self, tile: int, steering: Steering) -> AbstractContextManager[Codec]:
        """Stable Diffusion's own autoencoder."""
        return self.parts.autoencoder(tile)

    def condition(
        self, z_lr: Tensor, restored: Tensor, lr: Tensor, steering: Steering
    ) -> Condition:
        """The enlarged picture as the hint; text, and the tokens of the LR picture as it is."""
        tall, wide = (side * FACTOR for side in z_lr.shape[-2:])
        hint = picture_hint(restored.clamp(0, 1), tall, wide).to(z_lr)
        image = self.see(lr, "bilinear")
        tokens, negative = self.parts.prompts(steering)
        tokens["image"] = image
        if negative is not None:
            negative["image"] = image
        guidance = Guidance(
            tokens, negative, steering.cfg, steering.strength, steering.fidelity
        )  # fmt: skip
        return Condition(z_lr.float(), {"hint": hint}, guidance=guidance)

    def refine(self, condition: Condition, z_0: Tensor, restored: Tensor, tile: int) -> Condition:
        """Steered by the mix of ``restored`` and of the picture that ``z_0`` codes."""
        weight, guidance = self.settings.refinement, condition.guidance
        if weight == 0 or guidance is None:
            return condition
        height, width = restored.shape[-2:]
        with self.parts.autoencoder(tile) as codec:
            decoded = codec.decode(z_0.cpu())[..., :height, :width]
        picture = refined_picture(decoded, restored.clamp(0, 1), weight)
        tall, wide = (side * FACTOR for side in z_0.shape[-2:])
        image = self.see(picture, "bicubic")
        tokens, negative = guidance.tokens, guidance.negative
        guidance = replace(
            guidance,
            tokens={**tokens, "image": image},
            negative=None if negative is None else {**negative, "image": image},
        )
        hint = picture_hint(picture, tall, wide).to(z_0)
        return replace(condition, maps={"hint": hint}, guidance=guidance)

    @torch.no_grad()
    def see(self, picture: Tensor, mode: Literal["bicubic", "bilinear"]) -> Tensor:
        """DAPE's tokens (1, N, C) of a picture of any size."""
        with self._dape.lent() as dape:
            seen = dape_input(picture.float().to(self.parts.device), dape.config.size, mode)
            tokens: Tensor = dape(seen)
        return tokens

    def dape_tensors(self) -> dict[str, Tensor]:
        """RAM's of what makes tokens, and those that adapt them."""
        return {
            key: value
            for role in ("ram", "dape")
            for key, value in self.parts.tensors(role, "").items()
            if key.startswith(seesr.DAPE_PARTS) and not key.endswith(seesr.DERIVED)
        }

    def read_dape(self) -> seesr.DAPE:
        """DAPE in fp32 on the device."""
        state = seesr.merge_lora(self.dape_tensors())
        config = seesr.infer_dape(state)
        dape = build_filled(
            lambda: seesr.DAPE(config), seesr.dape_name, state, str(self.files["ram"]),
            self.parts.device,
        )  # fmt: skip
        dape.make_derived()
        return dape

    @contextmanager
    def denoiser(self) -> Iterator[ControlledUNet]:
        """U-Net and ControlNet; what runs between the steps is not read anew for each."""
        self.networks.load(self.beside())
        with ExitStack() as kept:
            if self.settings.refinement > 0:
                kept.enter_context(self.parts.autoencoder())
                kept.enter_context(self._dape.lent())
            yield kept.enter_context(self.networks.lent())
