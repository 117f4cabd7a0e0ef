"""What differs between DiffBIR's versions; a model's ``settings`` table in ``weights.toml``."""

from __future__ import annotations

from dataclasses import dataclass

from yoda_cli.diffusion.schedule import Prediction

TASKS = {"sr": "stage1", "face": "stage1_face", "denoise": "stage1_denoise"}


@dataclass(frozen=True)
class Version:
    """Defaults of a version, and what its tensors do not tell.

    ``chain`` is how its steps are spaced; ``colour`` how the result gets the restored picture's
    colours. Smaller pictures are worked on at ``shortest`` pixels, the side that Stable Diffusion
    was trained on. ``head_dim`` and ``text_heads`` (0: as in OpenCLIP) are those of attention.
    """

    prediction: Prediction = "eps"
    chain: str = "openai"
    cfg: float = 1.0
    prompt: str = ""
    negative_prompt: str = ""
    colour: str = "wavelet"
    head_dim: int = 64
    text_heads: int = 0
    shortest: int = 512
