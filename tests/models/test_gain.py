"""The gain regressor's file: what it holds, and which models it is refused for."""

import pytest
import torch

from yoda_cli.diffusion.adaptive import Gains
from yoda_cli.errors import WeightsError
from yoda_cli.models.gain import (
    RegionView,
    Regressor,
    Shape,
    is_regressor,
    load_regressor,
    save_regressor,
)
from yoda_cli.models.nets.gain import GainNet
from yoda_cli.tiling.windows import Window

SHAPE = Shape("general", 3, 1000)
CPU = torch.device("cpu")


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "general-gain.safetensors"
    save_regressor(path, Regressor(GainNet(3), SHAPE, {"rank_realism": 0.5}))
    return path


def test_what_was_saved_judges_as_before(saved):
    torch.manual_seed(0)
    net, found = GainNet(3), load_regressor(saved, SHAPE, CPU)
    z = torch.randn(3, 1, 3, 17, 40)
    times = torch.tensor([[0.6, 0.5]])
    assert torch.equal(found.net(*z, times), net(*z, times))
    assert found.card["rank_realism"] == 0.5
    judge = found.judge(RegionView(Window(0, 0, 17, 40), (17, 40), z[2], lambda z: z))
    assert judge(z[0], 600) is None
    second = judge(z[1], 500)
    fidelity, realism = net(*z, times)[0].tolist()
    assert second == Gains(fidelity, realism)


def test_it_is_small_and_takes_any_size():
    net = GainNet(4)
    assert sum(p.numel() for p in net.parameters()) <= 300_000
    for height, width in ((1, 1), (8, 8), (5, 70)):
        z = torch.zeros(2, 4, height, width)
        out = net(z, z, z, torch.zeros(2, 2))
        assert out.shape == (2, 2)
        assert bool(out.isfinite().all())


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Shape("face", 3, 1000), "of model general, not of face: train one"),
        (Shape("general", 4, 1000), "judges 3 channels and 1000 steps; general has 4 and 1000"),
        (Shape("general", 3, 500), "general has 3 and 500"),
    ],
)
def test_a_regressor_of_another_model_is_refused_by_name_and_shape(saved, wanted, said):
    with pytest.raises(WeightsError, match=said):
        load_regressor(saved, wanted, CPU)


def test_what_is_no_regressor_is_refused(tmp_path, saved, tiny_checkpoint):
    assert is_regressor(saved)
    assert not is_regressor(tiny_checkpoint)
    with pytest.raises(WeightsError, match="is no gain regressor"):
        load_regressor(tiny_checkpoint, SHAPE, CPU)
    (tmp_path / "text.safetensors").write_text("hello")
    assert not is_regressor(tmp_path / "text.safetensors")
    with pytest.raises(WeightsError, match="not a readable"):
        load_regressor(tmp_path / "text.safetensors", SHAPE, CPU)
    with pytest.raises(WeightsError, match="no such"):
        load_regressor(tmp_path / "none.safetensors", SHAPE, CPU)


def test_a_damaged_regressor_is_refused(saved):
    net = GainNet(3)
    with torch.no_grad():
        net.out.bias[0] = float("nan")
    save_regressor(saved, Regressor(net, SHAPE))
    with pytest.raises(WeightsError, match="not finite"):
        load_regressor(saved, SHAPE, CPU)
    save_regressor(saved, Regressor(GainNet(4), SHAPE))
    with pytest.raises(WeightsError, match="does not fit"):
        load_regressor(saved, SHAPE, CPU)
