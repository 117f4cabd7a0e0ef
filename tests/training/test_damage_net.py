"""The script that trains the network for damage: a tiny run of it learns, and says how well."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import save_photo
from safetensors import safe_open

import yoda_cli
from yoda_cli.images.degradation_net import statistics, strengths, weights_of

SCRIPT = Path(yoda_cli.__file__).parent.parent / "scripts" / "damage_net.py"


@pytest.fixture(scope="module")
def script():
    if not SCRIPT.is_file():
        pytest.skip("the scripts are not part of an installed package")
    return runpy.run_path(str(SCRIPT))


def test_the_script_writes_what_the_package_reads(script, tmp_path, monkeypatch, capsys):
    for index in range(2):
        save_photo(tmp_path / f"{index}.png", 300, 280, seed=index)
    out = tmp_path / "damage.safetensors"
    arguments = ["damage_net.py", tmp_path, out, "--crops", 4, "--held-out", 6, "--epochs", 1]
    monkeypatch.setattr("sys.argv", [str(a) for a in arguments])
    script["main"]()
    assert "rank correlation" in capsys.readouterr().out
    with safe_open(str(out), "pt") as file:
        assert file.metadata()["crops"] == "4"
        net = script["DamageNet"]().eval()
        net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    windows = np.random.default_rng(0).random((3, 3, 40, 33), np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(statistics(windows))).numpy()
    assert strengths(windows, weights_of(out)) == pytest.approx(expected, abs=1e-5)


def test_it_learns_what_the_statistics_tell(script):
    """Strengths that follow from the statistics are ranked, those of other crops too."""
    torch.manual_seed(0)
    level = torch.rand(600)
    noise = level.view(-1, 1, 1, 1) * 0.2 * torch.randn(600, 3, 24, 24)
    seen = torch.from_numpy(statistics((0.5 + noise).clamp(0, 1).numpy()))
    net = script["DamageNet"]().eval()
    script["fit"](net, seen[:500], level[:500], 20)
    with torch.no_grad():
        told = net(seen[500:])
    assert script["rank_correlation"](told, level[500:]) > 0.95
    assert (told - level[500:]).abs().mean() < 0.1
    assert "clean crops taken for damaged nan%" in script["describe"](told, level[500:])
