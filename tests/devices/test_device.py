"""Device and precision are decided once, and the same every time."""

import json

import numpy as np
import pytest
import torch
from fakes import save_photo
from PIL import Image

from yoda_cli.devices import device as devices
from yoda_cli.devices.device import pick_device, pick_precision
from yoda_cli.errors import DeviceError, UsageError

CPU = torch.device("cpu")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(devices, "may_have_bf16", lambda: True)  # whatever this machine has
    devices._fastest_on_cpu.cache_clear()
    yield tmp_path / "cache" / "precision.json"
    devices._fastest_on_cpu.cache_clear()


def test_a_cpu_without_bf16_is_not_measured(fresh, monkeypatch):
    monkeypatch.setattr(devices, "may_have_bf16", lambda: False)
    assert pick_precision("auto", CPU) == torch.float32
    assert not fresh.exists()


def test_the_measured_precision_is_kept(fresh, monkeypatch):
    first = pick_precision("auto", CPU)
    assert first in (torch.float32, torch.bfloat16)
    assert list(json.loads(fresh.read_text()).values()) in (["fp32"], ["bf16"])
    other = "fp32" if first == torch.bfloat16 else "bf16"
    monkeypatch.setattr(devices, "_measure", lambda: other)
    devices._fastest_on_cpu.cache_clear()
    assert pick_precision("auto", CPU) == first


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"x": 3}'])
def test_a_damaged_record_is_measured_again(fresh, damage):
    fresh.parent.mkdir()
    fresh.write_text(damage)
    assert pick_precision("auto", CPU) in (torch.float32, torch.bfloat16)
    assert len(json.loads(fresh.read_text())) == 1


def test_an_unwritable_cache_does_not_matter(fresh):
    fresh.parent.write_text("a file where the folder should be")
    assert pick_precision("auto", CPU) in (torch.float32, torch.bfloat16)


def test_named_precisions_are_taken_as_they_are():
    assert pick_precision("fp16", CPU) == torch.float16
    with pytest.raises(UsageError, match="unknown precision 'int8'"):
        pick_precision("int8", CPU)


def test_devices_are_named_or_found():
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match="unknown device"):
        pick_device("gpu")
    with pytest.raises(DeviceError, match="no device cuda:99"):
        pick_device("cuda:99")


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_picture(yoda, tiny_checkpoint, tmp_path):
    save_photo(tmp_path / "in.png", 20, 28)
    shared = ("upscale", tmp_path / "in.png", "-m", tiny_checkpoint, "--precision", "fp32", "-q")
    assert yoda(*shared, "-o", tmp_path / "a.png").code == 0
    done = yoda(*shared, "-o", tmp_path / "b.png", "--compile")
    assert done.code == 0, done.err
    a, b = (np.asarray(Image.open(tmp_path / name), dtype=int) for name in ("a.png", "b.png"))
    assert np.abs(a - b).max() <= 1


def test_exact_and_compile_are_not_promised_together(yoda, tiny_checkpoint, tmp_path):
    save_photo(tmp_path / "in.png", 20, 28)
    done = yoda("upscale", tmp_path / "in.png", "-m", tiny_checkpoint, "--compile", "--exact")
    assert done.code == 2
    assert "--compile" in done.err


@pytest.mark.slow
def test_one_compilation_serves_all_shapes():
    conv = torch.nn.Conv2d(2, 3, 3, padding=1).eval()
    run = devices.compiled(conv.forward, CPU)
    with torch.inference_mode():
        for size in (8, 12, 20):
            x = torch.rand(1, 2, size, size + 4)
            assert torch.allclose(run(x), conv(x), atol=1e-5)


@pytest.mark.slow
def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch):
    import torch._inductor.graph

    def refuse(*arguments):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch._inductor.graph.GraphLowering, "compile_to_module", refuse)
    run = devices.compiled(lambda x: x * 3 + 1, CPU)
    assert run(torch.ones(5)).tolist() == [4.0] * 5


def test_host_tensors_reach_the_cpu_as_they_are():
    x = torch.rand(2, 3)
    assert devices.upload(x, CPU) is x
