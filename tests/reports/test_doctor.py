"""``yoda doctor`` on machines where something fails."""

import sys

from yoda_cli.reports import doctor


def test_the_doctor_survives_the_disease(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["torchvision"].ok is False
    assert "pip install" in findings["torchvision"].value
    monkeypatch.setitem(sys.modules, "torch", None)
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["torch pair"].ok is False


def test_the_doctor_knows_a_machine_without_a_home(monkeypatch):
    import platformdirs

    monkeypatch.delenv("YODA_CACHE_DIR")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: "~/.cache/yoda")
    broken = [finding for finding in doctor.examine() if finding.ok is False]
    assert any("--cache-dir" in finding.value for finding in broken)


def test_the_doctor_tries_what_runs_our_networks_without_torch(monkeypatch):
    (found,) = doctor.without_torch()
    assert found.ok
    monkeypatch.setattr("yoda_cli.devices.graphs.Graph.run", broken)
    (found,) = doctor.without_torch()
    assert found.ok is False
    assert "--runtime torch does" in found.value
    monkeypatch.setattr("yoda_cli.devices.graphs.has_runtime", lambda: False)
    (found,) = doctor.without_torch()
    assert found.ok is None
    assert "torch runs all networks" in found.value


def broken(self, inputs, wanted):
    raise RuntimeError("an instruction that this processor does not know")
