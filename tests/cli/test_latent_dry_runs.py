"""A dry run of a model of latents tells its plan without the networks, which have gigabytes."""

import json

import pytest
import tiny_addsr
import tiny_diffbir
import tiny_stablesr
from cases import one_by_default
from fakes import save_photo

from yoda_cli.models import calibration
from yoda_cli.models.latent import components
from yoda_cli.models.latent.denoising import LatentDenoiser

FAMILIES = {
    "DiffBIR": (tiny_diffbir, ("tiny_control.pth", "tiny_sd.ckpt", "tiny_stage1.pth")),
    "StableSR": (tiny_stablesr, tiny_stablesr.FILES),
    "AddSR": (tiny_addsr, tuple(tiny_addsr.NAMES.values())),
}


@pytest.fixture
def loaded(monkeypatch):
    """What is given weights, in order: the parts of a denoiser, autoencoder and text tower."""
    calibration.forget()  # what other tests ran
    found, fill = [], LatentDenoiser.fill

    def filled(self, part, *arguments, **keywords):
        found.append(part)
        return fill(self, part, *arguments, **keywords)

    monkeypatch.setattr(LatentDenoiser, "fill", filled)
    for name in ("load_vae", "load_text"):
        load = getattr(components, name)
        monkeypatch.setattr(
            components, name, lambda *a, n=name, f=load, **k: (found.append(n), f(*a, **k))[1]
        )
    return found


@pytest.mark.parametrize("family", one_by_default(FAMILIES))
def test_a_dry_run_loads_no_network_before_or_after_a_run(yoda, tmp_path, loaded, family):
    tiny, files = FAMILIES[family]
    tiny.make_files(tmp_path)
    tiny.write_registry(tmp_path / "registry.toml")
    shared = ("--registry", tmp_path / "registry.toml", "--cache-dir", tmp_path / "cache")
    for name in files:
        assert yoda("weights", "import", tmp_path / name, "--as", name, *shared).code == 0
    source = save_photo(tmp_path / "in.png", 16, 20)
    line = ("upscale", source, "-m", "tiny", "-o", tmp_path / "out.png", "--json", *shared)
    plans = []
    for how in ("--dry-run", "--overwrite", "--dry-run"):
        loaded.clear()
        done = yoda(*line, how)
        assert done.code == 0, done.err
        if how == "--dry-run":
            assert not loaded
            plans.append(json.loads(done.out))
        else:
            assert {"unet", "load_vae"} <= set(loaded)
    assert plans[0]["planned_calls"] == plans[1]["planned_calls"] > 0
    assert plans[0]["forecast_seconds"] == 0.0, "nothing is known yet, and nothing is measured"
    assert plans[1]["forecast_seconds"] > 0, "what the run took is known"
