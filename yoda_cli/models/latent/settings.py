"""What differs between the versions of a family; a model's ``settings`` table in weights.toml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from yoda_cli.diffusion.schedule import Prediction

TASKS = {"sr": "stage1", "face": "stage1_face", "denoise": "stage1_denoise"}

Spacing = Literal["even", "openai", "leading", "trailing", "four"]
ColorFix = Literal["wavelet", "adain", "none"]


@dataclass(frozen=True)
class FamilySettings:
    """Defaults of a version, and what its tensors do not tell.

    ``chain`` is how its steps are spaced; ``color`` how the result gets the restored picture's
    colours; ``start`` what the chain begins with outside and inside the mask: pure noise, or the
    noised restored picture. Smaller pictures are worked on at ``shortest`` pixels, the side that
    Stable Diffusion was trained on, and larger ones in windows of ``window`` latents once a side
    is above ``whole``. ``fidelity`` is what is taken when none is asked for. ``head_dim`` and
    ``text_heads`` (0: as in OpenCLIP) are those of attention. ``refinement`` in [0, 1] is the
    share of the picture made so far in what steers the next step.
    """

    prediction: Prediction = "eps"
    chain: Spacing = "openai"
    cfg: float = 1.0
    prompt: str = ""
    negative_prompt: str = ""
    color: ColorFix = "wavelet"
    start: Literal["noise", "lr"] = "noise"
    head_dim: int = 64
    text_heads: int = 0
    shortest: int = 512
    window: int = 64
    whole: int = 96
    fidelity: float = 0.0
    refinement: float = 0.0

    def __post_init__(self) -> None:
        """ValueError for a word that none of the choices is."""
        hints = get_type_hints(type(self))
        for name in ("prediction", "chain", "color", "start"):
            allowed, value = get_args(hints[name]), getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} = {value!r}; use {', '.join(allowed)}")
