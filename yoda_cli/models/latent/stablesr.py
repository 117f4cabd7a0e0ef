"""StableSR (arXiv:2305.07015): Stable Diffusion modulated by the enlarged picture's code.

The published weights come in two forms: one checkpoint, or Stable Diffusion's own and the modules
that were trained beside it. The decoder that takes up features of the picture is a file of its
own; how much of them it takes is ``fidelity``. Where the reference draws the picture's code from
its posterior, the mean is taken; where it pads to 32 pixels, borders are repeated to 64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.errors import WeightsError
from yoda_cli.images.resize import imresize
from yoda_cli.models.base import Condition, Guidance
from yoda_cli.models.latent.autoencoder import Autoencoder, load_wrapped_vae
from yoda_cli.models.latent.components import TEXT, UNET, Components, Kept
from yoda_cli.models.latent.family import Codec, Steering
from yoda_cli.models.latent.lending import Networks
from yoda_cli.models.latent.modulated import ModulatedDenoiser
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.latent.text import PREFIX as TEXT_PREFIX
from yoda_cli.models.nets import ldm
from yoda_cli.models.nets import stablesr as nets

ENCODER, MODULATION = "structcond_stage_model.", ".spade."
TRAINING = "loss."  # what the decoder's file still holds of its training
WHOLE, MODULES = "StableSR in one file", "StableSR's modules"
DECODER = "StableSR's VAE with feature wrapping"


class StableSR:
    """Files by role: ``diffusion`` (all, or Stable Diffusion 2.1), ``modules`` or none,
    ``decoder`` or none, ``stage1`` or none.

    ``net`` has the networks' shapes from the start and their weights inside ``denoiser``.
    """

    wraps = True
    unread = ("strength",)

    def __init__(
        self, name: str, settings: FamilySettings, files: Mapping[str, Path],
        device: torch.device, precision: torch.dtype,
    ) -> None:  # fmt: skip
        """Look at the files, so that a wrong one is refused before any work."""
        self.name, self.settings, self.files = name, settings, files
        self.parts = Components(name, settings, files, device, precision)
        unet, encoder = self.unet_tensors(), self.encoder_tensors()
        if "decoder" in files and not any("fusion_layer" in key for key in self.vae_tensors()):
            raise WeightsError(self.parts.unexpected("decoder", DECODER))
        self.net = ModulatedDenoiser(
            ldm.infer_unet(unet, settings.head_dim), nets.infer_encoder(encoder),
            settings.prediction,
        )  # fmt: skip
        self.net.check("unet", unet, str(files["diffusion"]))
        self.net.check("encoder", encoder, str(files[self.role]))
        self.networks = Networks(
            self.parts,
            self.net,
            {
                "unet": lambda: (self.unet_tensors(), str(files["diffusion"])),
                "encoder": lambda: (self.encoder_tensors(), str(files[self.role])),
            },
        )
        self._wrapped = Kept(self.read_wrapped, lambda: self.parts.has_room)

    @property
    def role(self) -> str:
        """That of the file that holds StableSR's own modules."""
        return "modules" if "modules" in self.files else "diffusion"

    def unet_tensors(self) -> dict[str, Tensor]:
        """Stable Diffusion's U-Net with the modulations, of one file or of two."""
        unet = self.parts.tensors("diffusion", UNET)
        if "out.2.weight" not in unet:
            wanted = "Stable Diffusion 2.1" if self.role == "modules" else WHOLE
            raise WeightsError(self.parts.unexpected("diffusion", wanted))
        if self.role == "modules":
            unet |= self.parts.tensors("modules", UNET)
        if not any(MODULATION in key for key in unet):
            raise WeightsError(self.parts.unexpected(self.role, WHOLE))
        text = self.parts.tensors("diffusion", TEXT).get(f"{TEXT_PREFIX}ln_final.weight")
        if text is None or len(text) != ldm.infer_unet(unet).context:  # Stable Diffusion 1.x
            raise WeightsError(self.parts.unexpected("diffusion", "Stable Diffusion 2.1"))
        return unet

    def encoder_tensors(self) -> dict[str, Tensor]:
        """Those of the time-aware encoder."""
        state = self.parts.tensors(self.role, ENCODER)
        if "fea_tran.0.in_layers.0.weight" not in state:
            wanted = MODULES if self.role == "modules" else WHOLE
            raise WeightsError(self.parts.unexpected(self.role, wanted))
        return state

    def vae_tensors(self) -> dict[str, Tensor]:
        """Those of the decoder's file: a whole autoencoder."""
        state = self.parts.tensors("decoder", "first_stage_model.")
        return {key: value for key, value in state.items() if not key.startswith(TRAINING)}

    def check_memory(self) -> None:
        """Of U-Net and encoder."""
        self.networks.check_memory()

    def restore(self, lr: Tensor, height: int, width: int) -> Tensor:
        """The enlarged picture, by the interpolation that the networks were trained with."""
        with self.parts.restorer() as restorer:
            if restorer is not None:
                return restorer.restore(lr, height, width)
        if height < lr.shape[-2] or width < lr.shape[-1]:
            return imresize(lr, (height, width)).clamp(0, 1)
        return F.interpolate(lr, (height, width), mode="bicubic").clamp(0, 1)

    def codec(self, tile: int, steering: Steering) -> AbstractContextManager[Codec]:
        """The decoder that takes up features, unless none are wanted."""
        if steering.fidelity == 0:
            return self.parts.autoencoder(tile)
        return self.wrapped(tile, steering.fidelity)

    @contextmanager
    def wrapped(self, tile: int, w: float) -> Iterator[Autoencoder]:
        """The autoencoder of the decoder's file, kept where there is room."""
        with self._wrapped.lent() as vae:
            yield Autoencoder(vae, self.parts.device, tile, w)

    def read_wrapped(self) -> nets.WrappedVAE:
        """That autoencoder in fp32 on the device."""
        return load_wrapped_vae(self.vae_tensors(), str(self.files["decoder"]), self.parts.device)

    def condition(
        self, z_lr: Tensor, restored: Tensor, lr: Tensor, steering: Steering
    ) -> Condition:
        """The code and the prompts' states; without guidance only the empty one's are needed."""
        tokens, negative = self.parts.prompts(steering)
        return replace(self.net.encode(z_lr), guidance=Guidance(tokens, negative, steering.cfg))

    def refine(self, condition: Condition, z_0: Tensor, restored: Tensor, tile: int) -> Condition:
        """As it was: the encoder sees the restored picture's code at every step."""
        return condition

    def denoiser(self) -> AbstractContextManager[ModulatedDenoiser]:
        """U-Net and encoder."""
        return self.networks.lent()
