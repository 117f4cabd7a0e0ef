"""What the latent pipeline needs from a family of models: DiffBIR, StableSR, AddSR.

A family restores the LR picture, makes a condition of it, and hands over its networks when they
are needed, so that no two large ones need be in memory together. Pictures are (1, 3, H, W) in
[0, 1], latents (1, C, H/8, W/8), scaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from yoda_cli.models.backbone import Backbone
from yoda_cli.models.base import Condition
from yoda_cli.models.latent.settings import FamilySettings


@dataclass(frozen=True)
class Steering:
    """What a person asked of a latent model beside the mask and the chain; nothing is left open.

    ``cfg`` ≥ 0 is the scale of classifier-free guidance, ``strength`` in [0, 2] that of the
    controls, ``fidelity`` in [0, 1] how far results are drawn towards the restored picture.
    """

    prompt: str = ""
    negative_prompt: str = ""
    cfg: float = 1.0
    strength: float = 1.0
    fidelity: float = 0.0


class Codec(Protocol):
    """An autoencoder ready to run on pictures of any size; both ways run on the CPU's tensors."""

    def encode(self, image: Tensor) -> Tensor:
        """A picture in [-1, 1], sides divisible by 8, as a latent; nothing is drawn."""
        ...

    def decode(self, latent: Tensor, restored: Tensor | None = None) -> Tensor:
        """The picture in [-1, 1], not clipped; decoders that take features of the restored
        picture read them from ``restored`` in [-1, 1]."""
        ...


class LatentFamily(Protocol):
    """One model of a family, its files known and its weights not yet read."""

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> FamilySettings: ...
    @property
    def files(self) -> Mapping[str, Path]: ...
    @property
    def wraps(self) -> bool:
        """Whether ``Steering.fidelity`` is the decoder's: the chain runs whatever it is."""
        ...

    @property
    def unread(self) -> Sequence[str]:
        """Names of options for latent models that this family has no use for."""
        ...

    @property
    def net(self) -> Backbone:
        """Shapes only, until ``denoiser`` is entered."""
        ...

    def check_memory(self) -> None:
        """DeviceError where the networks will not fit; asked before anything large is read."""
        ...

    def restore(self, lr: Tensor, height: int, width: int) -> Tensor:
        """The picture that diffusion starts from, of (height, width), not clipped."""
        ...

    def codec(self, tile: int, steering: Steering) -> AbstractContextManager[Codec]:
        """The autoencoder, its work cut into ``tile`` latents a side (0: not cut)."""
        ...

    def condition(
        self, z_lr: Tensor, restored: Tensor, lr: Tensor, steering: Steering
    ) -> Condition:
        """What every call is given: ``z_lr`` is the code of ``restored``, and that is of ``lr``."""
        ...

    def refine(self, condition: Condition, z_0: Tensor, restored: Tensor, tile: int) -> Condition:
        """The condition of the next step, from the last one's estimate ``z_0`` (z_lr where nothing
        was refined); ``tile`` is as for ``codec``. Most families keep theirs."""
        ...

    def denoiser(self) -> AbstractContextManager[Backbone]:
        """``net`` with its weights; kept for the next picture where there is room."""
        ...
