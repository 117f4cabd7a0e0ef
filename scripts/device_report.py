"""What a GPU makes of this package, in one command of at most nine minutes and one JSON file.

    python scripts/device_report.py report.json

It compares with the CPU, times every family with random weights of full size, and tries compiled
graphs, offloading and running out of memory. Nothing is downloaded. ``--device cpu --small`` is a
rehearsal on any machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.device import pick_device
from yoda_cli.errors import YodaError
from yoda_cli.images.resize import imresize
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.base import Guidance
from yoda_cli.models.latent.addsr import seesr_design
from yoda_cli.models.latent.controlled import ControlledUNet, diffbir_design
from yoda_cli.models.latent.modulated import ModulatedDenoiser
from yoda_cli.models.loading import find_model
from yoda_cli.models.nets import ldm, seesr
from yoda_cli.models.nets import stablesr as stablesr_nets
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Result
from yoda_cli.version import __version__
from yoda_cli.weights.structures import structures

SECONDS = 500.0  # after which no further part is begun
TEXT, IMAGE = 77, 145  # tokens
PIXEL_MODELS = ("general", "face")
NOT_THE_SAME = 4.0  # 8-bit levels of a mean difference that no rounding explains


@dataclass(frozen=True)
class Machine:
    """Where the report is made; ``small`` networks and pictures are for rehearsals."""

    device: torch.device
    small: bool

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Until all that was begun on the device is done."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def forget_peak(self) -> None:
        """What is measured from here on is a new peak."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int | None:
        """Bytes that tensors took on the device at most; None on a CPU."""
        return int(torch.cuda.max_memory_allocated(self.device)) if self.is_cuda else None


def picture(height: int, width: int) -> Tensor:
    """Smooth areas and texture, the same everywhere."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    fine = 0.1 * torch.randn(1, 3, height, width, generator=generator)
    return (imresize(coarse, (height, width)) + fine).clamp(0, 1)


def upscaled(lr: Tensor, **asked: Any) -> tuple[Result, float]:
    """By a bundled model, and the seconds of the second run: the first one prepares."""
    options = UpscaleOptions(**asked)
    model = find_model(options)
    settings = resolve(options, model)
    upscale_tensor(lr, model, settings)
    began = time.perf_counter()
    result = upscale_tensor(lr, model, settings)
    return result, time.perf_counter() - began


def pixels(machine: Machine) -> dict[str, Any]:
    """The bundled models on the device in each precision, against fp32 on the CPU."""
    lr = picture(16, 16) if machine.small else picture(128, 160)
    found: dict[str, Any] = {}
    for model in PIXEL_MODELS:
        reference, seconds = upscaled(lr, model=model, device="cpu", precision="fp32")
        found[f"{model} cpu fp32"] = {"seconds": round(seconds, 4)}
        for precision in ("fp32", "bf16", "fp16") if machine.is_cuda else ("fp32",):
            machine.forget_peak()
            made, seconds = upscaled(
                lr, model=model, device=str(machine.device), precision=precision
            )  # fmt: skip
            off = 255 * (made.image - reference.image).abs()
            found[f"{model} {machine.device} {precision}"] = {
                "seconds": round(seconds, 4),
                "peak_bytes": machine.peak(),
                "levels_off_mean": float(off.mean()),
                "levels_off_most": float(off.max()),
                "is_right": bool(off.mean() < NOT_THE_SAME),
            }
    return found


def graphs(machine: Machine) -> dict[str, Any]:
    """Compiled, which on CUDA is graphs, against as it is."""
    if not machine.is_cuda:
        return {"skipped": "graphs are CUDA's"}
    lr = picture(128, 160)
    shared = {"model": "general", "device": str(machine.device), "precision": "fp32"}
    plain, before = upscaled(lr, **shared)
    made, after = upscaled(lr, **shared, compile=True)
    off = 255 * float((made.image - plain.image).abs().max())
    return {
        "seconds": round(before, 4), "compiled_seconds": round(after, 4), "levels_off_most": off,
    }  # fmt: skip


def shapes(name: str) -> dict[str, Tensor]:
    """The tensors of a published network, without memory."""
    return {key: torch.empty(shape, device="meta") for key, shape in structures()[name].items()}


def families(small: bool) -> dict[str, Callable[[], Backbone]]:
    """The networks of each latent family, of the published size or small; shapes only."""
    if small:
        unet = ldm.UNetConfig(4, (32, 64), 1, (True, False), 16, 16)
        steered = seesr.SeeSRConfig(4, (32, 64), 1, (True, False), 16, 12, (2, 4))
        seen = replace(steered, stem=(8, 8, 8, 8))
        encoder = stablesr_nets.EncoderConfig(4, (32, 64), 1, (True, False), 32)
    else:
        unet = ldm.infer_unet(shapes("diffbir_unet"))
        steered = seesr.infer_seesr(shapes("seesr_unet"))
        seen = seesr.infer_seesr(shapes("seesr_controlnet"))
        encoder = stablesr_nets.infer_encoder(shapes("stablesr_encoder"))
    control = replace(unet, in_channels=unet.in_channels + 4)
    return {
        "DiffBIR": lambda: ControlledUNet(diffbir_design(unet, control)),
        "AddSR": lambda: ControlledUNet(seesr_design(steered, seen)),
        "StableSR": lambda: ModulatedDenoiser(unet, encoder),
    }


@torch.no_grad()
def randomised(net: Backbone, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Random weights that keep the size of what goes through."""
    generator = torch.Generator(device).manual_seed(0)
    for module in net.modules():
        for name, empty in list(module.named_parameters(recurse=False)):
            value = torch.randn(empty.shape, generator=generator, device=device)
            spread = empty[0].numel() ** -0.5 if empty.ndim > 1 else 0.1
            is_scale = empty.ndim == 1 and name == "weight"
            value = value.mul_(spread).add_(1.0 if is_scale else 0.0).to(dtype)
            setattr(module, name, torch.nn.Parameter(value, requires_grad=False))
    return net


def one_call(net: Backbone, device: torch.device, side: int, small: bool) -> Tensor:
    """ẑ_0 of a latent of ``side`` × ``side``."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    z, text, image = (
        drawn(1, 4, side, side), drawn(1, TEXT, 16 if small else 1024),
        drawn(1, IMAGE, 12 if small else 512),
    )  # fmt: skip
    condition = replace(net.encode(z), guidance=Guidance({"text": text, "image": image}))
    mask = torch.ones(1, 1, side, side, dtype=torch.bool, device=device)
    with torch.no_grad():
        return net.predict(z, 500, condition, mask)


def latents(machine: Machine) -> dict[str, Any]:
    """Each family's networks: small ones against the CPU, large ones for time and memory."""
    found: dict[str, Any] = {}
    cpu, side = torch.device("cpu"), 16 if machine.small else 64
    large = torch.float32 if machine.small else torch.float16
    for name, make in families(True).items():
        weights = randomised(make(), cpu, torch.float32)
        reference = one_call(weights, cpu, 16, True)
        made = one_call(weights.to(machine.device), machine.device, 16, True).cpu()
        off = float((made - reference).abs().max() / reference.abs().max())
        found[name] = {"relative_error_fp32": off, "is_right": off < 1e-2}
    for name, make in families(machine.small).items():
        machine.forget_peak()
        net = randomised(make(), machine.device, large)
        one_call(net, machine.device, side, machine.small)  # prepares
        machine.wait()
        began = time.perf_counter()
        one_call(net, machine.device, side, machine.small)
        machine.wait()
        found[name] |= {
            "seconds_a_call": round(time.perf_counter() - began, 4),
            "latent_side": side,
            "parameters": sum(parameter.numel() for parameter in net.parameters()),
            "peak_bytes": machine.peak(),
        }
        found[name]["offloaded"] = offloaded(net, machine, side)
        del net
    return found


def offloaded(net: Backbone, machine: Machine, side: int) -> dict[str, Any]:
    """The same networks, each on the device only while it runs."""
    net.to("cpu")
    net.offloaded = True  # type: ignore[assignment]
    machine.forget_peak()
    began = time.perf_counter()
    one_call(net, machine.device, side, machine.small)
    machine.wait()
    return {"seconds_a_call": round(time.perf_counter() - began, 4), "peak_bytes": machine.peak()}


def out_of_memory(machine: Machine) -> dict[str, Any]:
    """One window of a large picture on a device that was made too small for it."""
    if not machine.is_cuda:
        return {"skipped": "only a CUDA device can be made small"}
    lr = picture(384, 512)
    asked = {"model": "general", "device": str(machine.device), "precision": "fp32"}
    machine.forget_peak()
    calm, _ = upscaled(lr, **asked, tile=0)
    total = torch.cuda.get_device_properties(machine.device).total_memory
    share = 0.7 * (machine.peak() or 0) / total
    machine.forget_peak()
    torch.cuda.set_per_process_memory_fraction(share, machine.device)
    try:
        hard, _ = upscaled(lr, **asked, tile=0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, machine.device)
    return {
        "share_of_memory": share,
        "recovered": str(hard.recovered),
        "levels_off_mean": 255 * float((hard.image - calm.image).abs().mean()),
    }


PARTS: dict[str, Callable[[Machine], dict[str, Any]]] = {
    "pixels": pixels,
    "latents": latents,
    "out_of_memory": out_of_memory,
    "graphs": graphs,
}


def about(machine: Machine) -> dict[str, Any]:
    """The device and the software."""
    name = torch.cuda.get_device_name(machine.device) if machine.is_cuda else platform.processor()
    return {
        "device": str(machine.device), "name": name, "torch": torch.__version__,
        "cuda": torch.version.cuda, "python": platform.python_version(), "yoda": __version__,
        "small": machine.small,
    }  # fmt: skip


def report(machine: Machine) -> dict[str, Any]:
    """Every part, or why it has no result; a part that fails does not end the others."""
    began, found = time.perf_counter(), {"about": about(machine)}
    for name, part in PARTS.items():
        if time.perf_counter() - began > SECONDS:
            found[name] = {"skipped": "the time was spent"}
            continue
        try:
            found[name] = part(machine)
        except (RuntimeError, YodaError) as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
    found["seconds"] = {"all": round(time.perf_counter() - began, 1)}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the report and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path, help="the JSON file to write")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, mps or cpu")
    parser.add_argument("--small", action="store_true", help="a rehearsal of seconds")
    asked = parser.parse_args(arguments)
    try:
        pick_device(asked.device)
    except YodaError as error:
        parser.error(f"{error}; --device cpu --small is a rehearsal")
    found = report(Machine(torch.device(asked.device), asked.small))
    asked.target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
