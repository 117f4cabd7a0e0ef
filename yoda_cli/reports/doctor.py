"""What this machine offers yoda, and what is broken: facts, each with whether it is all right."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from yoda_cli.errors import YodaError, how_to_install
from yoda_cli.files import cache_folder, counted
from yoda_cli.files.paths import is_file, is_there
from yoda_cli.version import __version__
from yoda_cli.weights import Cache, load_registry
from yoda_cli.weights.network import is_offline

MIN_PYTHON = (3, 11)
SPARE_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One fact. ``ok``: False is something yoda needs; None is only worth knowing."""

    name: str
    value: str
    ok: bool | None = True


def examine() -> list[Finding]:
    """All facts, the needed ones checked; never raises."""
    checks: tuple[Callable[[], list[Finding]], ...] = (
        python,
        packages,
        extras,
        torch_pair,
        without_torch,
        accelerators,
        cpu,
        bundled_models,
        cache_place,
        cached_files,
        network,
    )
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:  # a doctor who dies of the disease is no use
            message = f"{type(error).__name__}: {error}"
            findings.append(Finding(check.__name__.replace("_", " "), message, ok=False))
    return findings


def python() -> list[Finding]:
    """The interpreter and the system."""
    enough = sys.version_info >= MIN_PYTHON
    return [
        Finding("yoda", __version__, ok=None),
        Finding("Python", platform.python_version(), enough),
        Finding("system", platform.platform(), ok=None),
    ]


def packages() -> list[Finding]:
    """The libraries beside torch, with their versions."""
    findings = []
    for name in ("timm", "pillow", "numpy", "opencv-python-headless", "safetensors", "requests"):
        try:
            findings.append(Finding(name, importlib.metadata.version(name), ok=None))
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name, f"missing: {how_to_install()}", ok=False))
    return findings


#: An optional part, and the module that shows whether it is there.
EXTRAS = {
    "diffbir": "diffusers", "metrics": "piq", "onnx": "onnxruntime", "identity": "dlib",
    "ray": "ray", "vips": "pyvips",
}  # fmt: skip


def extras() -> list[Finding]:
    """The optional parts, and how to add those that are missing."""
    return [
        Finding(f"extra {name}", "installed" if find_spec(module) else how_to_install(name), None)
        for name, module in EXTRAS.items()
    ]


def torch_pair() -> list[Finding]:
    """Whether torch runs, and whether torchvision was built for it."""
    import torch

    total = float(torch.ones(8).sum())
    findings = [Finding("torch", torch.__version__, total == 8)]
    try:
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        findings.append(Finding("torchvision", f"{torchvision.__version__}, matches torch"))
    except (ImportError, RuntimeError, AttributeError) as error:
        text = f"does not match torch ({error}): pip install --upgrade torch torchvision"
        findings.append(Finding("torchvision", " ".join(text.split()), ok=False))
    return findings


def without_torch() -> list[Finding]:
    """Whether ncnn runs our networks on this processor."""
    import numpy as np

    from yoda_cli.config import UpscaleOptions
    from yoda_cli.devices.graphs import RUNTIME, has_runtime, runtime_version
    from yoda_cli.models.ncnn_network import load_plain

    if not has_runtime():
        return [Finding(RUNTIME, "not installed: torch runs all networks, more slowly", ok=None)]
    try:
        pixels = np.zeros((1, 3, 8, 8), np.float32)
        made = load_plain(UpscaleOptions()).backbone.encode(pixels)  # type: ignore[arg-type]
        is_sound = bool(np.isfinite(np.asarray(made.maps["base"])).all())
    except (YodaError, RuntimeError, ImportError) as error:
        return [Finding(RUNTIME, f"does not run here ({error}): --runtime torch does", ok=False)]
    return [Finding(RUNTIME, runtime_version(), is_sound)]


def accelerators() -> list[Finding]:
    """CUDA devices with their memory, MPS."""
    import torch

    if not torch.cuda.is_available():
        cuda = "none"
    else:
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        cuda = "; ".join(f"{d.name}, {d.total_memory / 2**30:.0f} GiB" for d in devices)
    mps = "available" if torch.backends.mps.is_available() else "none"
    return [Finding("CUDA", cuda, ok=None), Finding("MPS", mps, ok=None)]


def cpu() -> list[Finding]:
    """Instruction set, threads, and the precision that runs fastest."""
    import torch

    from yoda_cli.devices.device import pick_precision

    precision = str(pick_precision("auto", torch.device("cpu"))).removeprefix("torch.")
    features = torch.backends.cpu.get_cpu_capability()
    return [
        Finding("CPU", f"{features}, {counted(torch.get_num_threads(), 'thread')}", ok=None),
        Finding("CPU precision", f"{precision} (measured)", ok=None),
    ]


def bundled_models() -> list[Finding]:
    """The checkpoints that come with the package can be read."""
    from yoda_cli.models.checkpoint import load_checkpoint

    findings = []
    for model in load_registry().models.values():
        if model.bundled:
            load_checkpoint(model.path)
            findings.append(Finding(f"model {model.name}", "bundled, readable"))
    return findings


def cache_place() -> list[Finding]:
    """The cache folder, its room, and whether it can be written."""
    folder = cache_folder()
    standing = next(p for p in (folder, *folder.parents) if is_there(p))
    free = shutil.disk_usage(standing).free / 1e9
    writable = os.access(standing, os.W_OK)
    return [
        Finding("cache", f"{folder}{'' if writable else ' (read-only)'}", ok=None),
        Finding("free space", f"{free:.1f} GB", None if free > SPARE_GB else False),
    ]


def cached_files() -> list[Finding]:
    """Every downloaded file: whether it is still what was verified."""
    cache, findings = Cache.default(), []
    for entry in load_registry().files.values():
        path = cache.path(entry)
        if not is_file(path):
            continue
        try:
            cache.trusted(entry)
            findings.append(Finding(entry.name, "cached, verified"))
        except YodaError as error:
            findings.append(Finding(entry.name, str(error), ok=False))
    return findings or [Finding("downloads", "none", ok=None)]


def network() -> list[Finding]:
    """The switches that decide what is asked of the network. Asks nothing of it."""
    names = ("YODA_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "YODA_REGISTRY", "YODA_SLOW_SECONDS")
    switches = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    switches += [
        name
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
        if os.environ.get(name)
    ]
    state = "offline" if is_offline() else "online when weights are asked for"
    return [Finding("network", "; ".join([state, *switches]), ok=None)]
