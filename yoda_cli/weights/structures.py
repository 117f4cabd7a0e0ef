"""What a file of weights is, told from the names and shapes of its tensors.

``structures.json.gz`` lists them for every published network (schedule buffers left out), as read
from the reference implementations; torchvision's three are its own.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]

#: Networks in one file: the prefix of their keys, and which they are.
SD21 = (
    ("model.diffusion_model.", "diffbir_unet"),
    ("first_stage_model.", "diffbir_vae"),
    ("cond_stage_model.", "diffbir_clip"),
)
STABLESR = (
    ("model.diffusion_model.", "stablesr_spade"),
    ("structcond_stage_model.", "stablesr_encoder"),
)

COMPOSITES = {
    "sd21": SD21,
    "diffbir_full": (
        *SD21,
        ("control_model.", "diffbir_controlnet"),
        ("preprocess_model.", "diffbir_swinir"),
    ),
    "stablesr_full": (*SD21, *STABLESR),
    "stablesr_modules": STABLESR,
    "ram": (("", "ram_tokens"),),
    "stablesr_vae": (("", "diffbir_vae"), ("", "stablesr_fusion")),
}

NAMES = {
    "sr3_16_128": "SR3 16 → 128",
    "sr3_64_512": "SR3 64 → 512",
    "srdiff_celeb_x8": "SRDiff ×8 (CelebA)",
    "srdiff_df2k_x4_nb8": "SRDiff ×4 (DF2K, small encoder)",
    "srdiff_df2k_x4_nb17": "SRDiff ×4 (DF2K)",
    "dino_vit_small8": "DINO ViT-S/8",
    "dino_vit_small16": "DINO ViT-S/16",
    "dino_resnet50": "DINO ResNet-50",
    "diffbir_controlnet": "DiffBIR's ControlNet",
    "diffbir_unet": "the U-Net of Stable Diffusion 2.1 alone",
    "diffbir_vae": "the VAE of Stable Diffusion 2.1 alone",
    "diffbir_clip": "the text encoder of Stable Diffusion 2.1 alone",
    "diffbir_swinir": "DiffBIR's SwinIR restorer",
    "diffbir_bsrnet": "BSRNet",
    "diffbir_scunet": "SCUNet",
    "diffbir_full": "DiffBIR v1 in one file",
    "sd21": "Stable Diffusion 2.1",
    "seesr_unet": "the U-Net of SeeSR or AddSR",
    "seesr_controlnet": "the ControlNet of SeeSR or AddSR",
    "ram": "RAM with Swin-L",
    "dape_lora": "DAPE, which adapts RAM",
    "stablesr_full": "StableSR in one file",
    "stablesr_modules": "StableSR's modules without Stable Diffusion",
    "stablesr_vae": "StableSR's VAE with feature wrapping",
    "alexnet": "torchvision's AlexNet",
    "vgg16": "torchvision's VGG-16",
    "squeezenet1_1": "torchvision's SqueezeNet 1.1",
}

#: What a published file holds beside weights: the buffers of the schedule it was saved with.
SCHEDULE_BUFFERS = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    }
)

SD_CONTEXT = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
ENOUGH = 0.3  # share of a structure's tensors that makes a file a damaged one of that kind


@dataclass(frozen=True)
class Identity:
    """``structure`` is exact, or empty; ``description`` says in words what the file is."""

    structure: str
    description: str


@cache
def structures() -> Mapping[str, Shapes]:
    """Every known structure: its tensors' names and shapes."""
    packed = (files("yoda_cli.weights") / "structures.json.gz").read_bytes()
    single = {
        name: {key: tuple(shape) for key, shape in table.items()}
        for name, table in json.loads(gzip.decompress(packed)).items()
    }
    joined = {
        name: {p + key: shape for p, part in parts for key, shape in single[part].items()}
        for name, parts in COMPOSITES.items()
    }
    return single | joined


def about_bytes(name: str) -> int:
    """The size of a file of this structure in fp32."""
    return 4 * sum(prod(shape) for shape in structures()[name].values())


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what counts: no schedule buffers, no counters of batch norms."""
    return {
        key: tuple(value.shape)
        for key, value in state.items()
        if key not in SCHEDULE_BUFFERS and not key.endswith("num_batches_tracked")
    }


def differences(found: Shapes, name: str) -> list[str]:
    """How tensors differ from the structure ``name``, one line each; empty if they fit.

    A file with several networks may hold more than those (optimiser averages, schedules).
    """
    expected = {k: v for k, v in structures()[name].items() if not k.endswith("batches_tracked")}
    wrong = [f"it lacks {key}" for key in expected if key not in found]
    wrong += [
        f"{key} is {list(found[key])}, not {list(shape)}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    if name not in COMPOSITES:
        wrong += [f"it has the unknown {key}" for key in found if key not in expected]
    return wrong


def identify(state: Mapping[str, Tensor]) -> Identity:
    """What the tensors of a file are."""
    found = shapes_of(state)
    for name in sorted(structures(), key=lambda name: -len(structures()[name])):  # largest first
        if name in NAMES and not differences(found, name):
            return Identity(name, NAMES[name])
    return Identity("", describe(found))


def describe(found: Shapes) -> str:
    """The nearest thing to tensors that fit no structure exactly."""
    if "denoise_fn.noise_level_mlp.1.weight" in found:
        channels = found.get("denoise_fn.downs.0.weight", (0, 0))[1]
        if channels == 3:
            return "an unconditional SR3 network (3 input channels, not 6)"
        return f"an SR3 network of another size ({channels} input channels)"
    if any(key.startswith("denoise_fn.time_mlp.") for key in found):
        return "a DDPM network of the SR3 code (conditioned on t, not on the noise level)"
    if "denoise_fn.cond_proj.weight" in found:
        return "an SRDiff network of another size"
    context = found.get(SD_CONTEXT, (0, 1024))[-1]
    if context != 1024:
        return f"a Stable Diffusion checkpoint with context width {context} (1.x), not 2.1"
    if "epoch" in found or not found:
        return "no network"
    name, share = nearest(found, NAMES)
    if share < ENOUGH:
        return f"unknown ({len(found)} tensors, the first is {next(iter(found))})"
    return f"like {NAMES[name]}, but {differences(found, name)[0]}"


def nearest(found: Shapes, names: Iterable[str]) -> tuple[str, float]:
    """The structure that shares most tensors, by name and shape, and their share."""
    shares = {
        name: sum(found.get(k) == shape for k, shape in structures()[name].items())
        / len(structures()[name])
        for name in names
    }
    best = max(shares, key=lambda name: shares[name])
    return best, shares[best]
