"""Fixtures that every test module may use."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background: what a test begins
    signal.signal(signal.SIGINT, signal.default_int_handler)  # would be as deaf to Ctrl-C


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def yoda(capfd, monkeypatch):
    """Run a command line in this process: exit code, stdout, stderr, as the script has them."""
    from yoda_cli.cli import run

    def call(*arguments):
        capfd.readouterr()
        code = run([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def upscale(yoda, tiny_checkpoint):
    """``yoda upscale`` with the tiny network, in full precision."""

    def call(*arguments):
        return yoda("upscale", *arguments, "--model", tiny_checkpoint, "--precision", "fp32")

    return call


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """No test reads or writes the user's cache."""
    os.environ["YODA_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A compact network with random weights, small enough to run in milliseconds."""
    from yoda_cli.models import BACKBONES
    from yoda_cli.models.checkpoint import save_checkpoint

    torch.manual_seed(0)
    settings = {
        "scale": 4,
        "dim": 16,
        "dim_mults": [1, 2],
        "unet_blocks": 1,
        "unshuffle": 4,
        "mask_input": True,
        "encoder": "residual",
        "encoder_channels": 16,
        "encoder_blocks": 1,
        "num_steps": 100,
        "alpha_bar_min": 1e-4,
        "prediction": "x0",
        "residual_scale": 3.0,
        "clip_z0": 0.0,
        "lr_divisor": 255,
    }
    net = BACKBONES["srdiff"](settings)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    card = {"defaults": {"attention": "learned", "lower_bound": 0.3, "steps": 4, "sampler": "ddim"}}
    save_checkpoint(path, backbone="srdiff", net=settings, state=net.state_dict(), card=card)
    return path


def pytest_configure():
    sys.path.insert(0, str(Path(__file__).parent))
