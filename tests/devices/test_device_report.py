"""The report that a person with a GPU makes, rehearsed on the CPU."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from yoda_cli.errors import DeviceError

SCRIPT = Path(__file__).parents[2] / "scripts" / "device_report.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("device_report", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def test_every_latent_family_is_compared_and_timed_and_a_failed_part_is_said(
    script, tmp_path, monkeypatch
):
    def fail(machine):
        raise DeviceError("no memory")

    monkeypatch.setattr(script, "PARTS", {"broken": fail, "latents": script.latents})
    script.main([str(tmp_path / "report.json"), "--device", "cpu", "--small"])
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["broken"] == {"failed": "DeviceError: no memory"}
    assert set(found["latents"]) == {"DiffBIR", "AddSR", "StableSR"}
    for family in found["latents"].values():
        assert family["is_right"]
        assert family["seconds_a_call"] > 0
        assert family["offloaded"]["seconds_a_call"] > 0


def test_no_part_is_begun_when_the_time_is_spent(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "SECONDS", -1.0)
    script.main([str(tmp_path / "report.json"), "--device", "cpu", "--small"])
    found = json.loads((tmp_path / "report.json").read_text())
    assert {name for name, part in found.items() if "skipped" in part} == set(script.PARTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_of_the_rehearsal(script, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        script.main([str(tmp_path / "report.json")])
    assert ended.value.code == 2
    assert "--device cpu --small is a rehearsal" in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()
