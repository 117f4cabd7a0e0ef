"""The part of the benchmark about DiffBIR: full-size networks with random weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.attention.sources import find_source
from yoda_cli.devices.memory import peak_bytes
from yoda_cli.diffusion.timesteps import openai_timesteps
from yoda_cli.images import read_picture
from yoda_cli.images.resize import imresize
from yoda_cli.models.latent.autoencoder import Autoencoder
from yoda_cli.models.latent.diffbir import DiffBIR, Guidance, load_vae
from yoda_cli.models.nets import ldm
from yoda_cli.tiling.plan import window_plan
from yoda_cli.upscaling.latent import window_size
from yoda_cli.weights.structures import structures

Figures = dict[str, dict[str, float]]


def seconds(run: Callable[[], object], repeats: int) -> float:
    """The median, after one run that is not counted."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def photo(pictures: Sequence[Path], repeats: int) -> Figures:
    """DiffBIR at its published size with random weights: seconds of its parts, and what masks save.

    One step of a 512×512 window is timed; the calls of larger outputs are those that the plan of a
    real picture counts.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: Figures = {}
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        found[f"one step of 512×512, {name}"] = step_row(device, dtype, repeats)
    vae = Autoencoder(load_vae(random_state("diffbir_vae"), "vae", device), device)
    image, latent = torch.rand(1, 3, 512, 512) * 2 - 1, torch.randn(1, 4, 64, 64)
    found["autoencoder, 512×512"] = {
        "encode": seconds(lambda: vae.encode(image), repeats),
        "decode": seconds(lambda: vae.decode(latent), repeats),
    }
    return found | {f"windows, {name}": row for name, row in photo_windows(pictures).items()}


@torch.inference_mode()
def step_row(device: torch.device, dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """Seconds of a step without and with guidance, and the process's peak so far."""
    net = full_size(device, dtype)
    z, text = torch.randn(1, 4, 64, 64, device=device), torch.randn(1, 77, 1024, device=device)
    condition, mask = net.encode(z), torch.ones_like(z[:, :1], dtype=torch.bool)

    def step() -> None:
        net.predict(z, 500, condition, mask)
        if device.type == "cuda":
            torch.cuda.synchronize()

    row = {"parameters": float(sum(p.numel() for p in net.parameters()))}
    for name, guidance in {
        "one prompt": Guidance(text), "two prompts": Guidance(text, text, 4.0),
    }.items():  # fmt: skip
        net.steer(guidance)
        row[name] = seconds(step, repeats)
    row["peak GB"] = peak_bytes() / 1e9
    return row


def full_size(device: torch.device, dtype: torch.dtype) -> DiffBIR:
    """U-Net and ControlNet with random weights."""
    states = {part: random_state(name) for part, name in
              (("unet", "diffbir_unet"), ("control", "diffbir_controlnet"))}  # fmt: skip
    net = DiffBIR(ldm.infer_unet(states["unet"]), ldm.infer_unet(states["control"]))
    for part, state in states.items():
        net.fill(part, state, part, device, dtype)
    return net


def random_state(name: str) -> dict[str, Tensor]:
    """Tensors of a published structure."""
    return {key: 0.02 * torch.randn(shape) for key, shape in structures()[name].items()}


def photo_windows(pictures: Sequence[Path]) -> Figures:
    """Window calls of the default chain at l = 0.3 for outputs of 512 and 2048 pixels."""
    found: Figures = {}
    chain = openai_timesteps(1000, 50)
    source = find_source("edge", None, torch.device("cpu"))
    for path in pictures:
        picture = read_picture(path).rgb
        row: dict[str, float] = {}
        for side in (512, 2048):
            scale = side / max(picture.shape[-2:])
            size = [max(64, round(n * scale / 64) * 64) for n in picture.shape[-2:]]
            seen = source.attend(imresize(picture, (size[0], size[1])).clamp(0, 1))
            latents = F.max_pool2d(seen, 8)
            window = window_size(*latents.shape[-2:], None)
            plan = window_plan(latents, chain, 0.3, 1000, window, skip=True)
            row[f"{side}: calls"] = plan.planned_calls
            row[f"{side}: dense over planned"] = plan.dense_calls / plan.planned_calls
        found[path.name] = row
    return found
