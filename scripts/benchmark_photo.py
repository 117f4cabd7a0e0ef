"""The parts of the benchmark about models of latents: full-size networks with random weights."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from device_report import families, one_call, randomised
from torch import Tensor

from yoda_cli.attention.sources import find_source
from yoda_cli.devices.device import may_have_bf16
from yoda_cli.devices.memory import peak_bytes
from yoda_cli.diffusion.timesteps import CHAINS
from yoda_cli.images import read_picture
from yoda_cli.images.resize import imresize
from yoda_cli.models.base import build_config
from yoda_cli.models.latent.autoencoder import Autoencoder, load_vae
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.tiling.plan import window_plan
from yoda_cli.weights import load_registry
from yoda_cli.weights.structures import structures

Figures = dict[str, dict[str, float]]
MASKED = ("diffbir-v2", "stablesr", "stablesr-turbo", "addsr")
SMALLEST_FIRST = ("StableSR", "DiffBIR", "AddSR")  # so that each peak is the own one's


def seconds(run: Callable[[], object], repeats: int) -> float:
    """The median, after one run that is not counted."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def steps(names: Sequence[str] = SMALLEST_FIRST, *, side: int = 64, small: bool = False) -> Figures:
    """One step of each family's networks on a window of ``side`` latents, with random weights:
    processor seconds of a single call, and the process's peak of memory so far."""
    cpu, found = torch.device("cpu"), {}
    for name in names:
        for dtype in (torch.float32, torch.bfloat16)[: 2 if may_have_bf16() else 1]:
            net = randomised(families(small)[name](), cpu, dtype)
            began = time.process_time()
            one_call(net, cpu, side, small)
            found[f"{name}, one step of {8 * side}×{8 * side}, {str(dtype)[6:]}"] = {
                "processor seconds": time.process_time() - began,
                "parameters": float(sum(p.numel() for p in net.parameters())),
                "peak GB": peak_bytes() / 1e9,
            }
            del net
            gc.collect()
    return found


def photo(pictures: Sequence[Path], repeats: int) -> Figures:
    """Models of latents at their published size with random weights: seconds of their parts, and
    what masks save.

    The calls of larger outputs are those that the plan of a real picture counts.
    """
    vae = Autoencoder(load_vae(random_state("diffbir_vae"), "vae"), torch.device("cpu"))
    image, latent = torch.rand(1, 3, 512, 512) * 2 - 1, torch.randn(1, 4, 64, 64)
    found = steps()
    found["autoencoder, 512×512"] = {
        "encode": seconds(lambda: vae.encode(image), repeats),
        "decode": seconds(lambda: vae.decode(latent), repeats),
    }
    return found | {f"windows, {name}": row for name, row in photo_windows(pictures).items()}


def random_state(name: str) -> dict[str, Tensor]:
    """Tensors of a published structure."""
    return {key: 0.02 * torch.randn(shape) for key, shape in structures()[name].items()}


def photo_windows(pictures: Sequence[Path], names: Sequence[str] = MASKED) -> Figures:
    """Window calls of models' own chains, masks and windows, for outputs of 512 and 2048 pixels."""
    found: Figures = {}
    source, registry = find_source("edge", None, torch.device("cpu")), load_registry()
    for path in pictures:
        picture = read_picture(path).rgb
        row: dict[str, float] = {}
        for side in (512, 2048):
            scale = side / max(picture.shape[-2:])
            size = [max(64, round(n * scale / 64) * 64) for n in picture.shape[-2:]]
            seen = source.attend(imresize(picture, (size[0], size[1])).clamp(0, 1))
            latents = F.max_pool2d(seen, 8)
            for name in names:
                entry = registry.model(name)
                own = build_config(FamilySettings, entry.settings)
                chain = CHAINS[own.chain](1000, entry.steps)
                window = 0 if max(latents.shape[-2:]) <= own.whole else own.window
                plan = window_plan(latents, chain, entry.lower_bound, 1000, window, skip=True)
                row[f"{name}, {side}: calls"] = plan.planned_calls
                row[f"{name}, {side}: left out"] = 1 - plan.planned_calls / plan.dense_calls
        found[path.name] = row
    return found
