"""Device and precision are decided once, and the same every time."""

import json

import pytest
import torch

from yoda_cli import devices
from yoda_cli.devices import pick_device, pick_precision
from yoda_cli.errors import DeviceError, UsageError

CPU = torch.device("cpu")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path / "cache"))
    devices._fastest_on_cpu.cache_clear()
    yield tmp_path / "cache" / "precision.json"
    devices._fastest_on_cpu.cache_clear()


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
