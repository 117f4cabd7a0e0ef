"""The gain regressor's file: what it holds, and which models it is refused for."""

import json
from dataclasses import replace

import pytest
import torch
from fakes import fake_model, save_photo
from safetensors import safe_open
from safetensors.torch import save_file

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.adaptive import Gains
from yoda_cli.errors import WeightsError
from yoda_cli.models.checkpoint import load_checkpoint, save_checkpoint
from yoda_cli.models.gain import (
    KEY,
    RegionView,
    Regressor,
    Shape,
    is_regressor,
    load_regressor,
    save_regressor,
)
from yoda_cli.models.loading import find_model, load_model
from yoda_cli.models.nets.gain import GainNet
from yoda_cli.models.regressors import digest_of, shape_of, with_judge
from yoda_cli.tiling.windows import Window

SHAPE = Shape("general", 3, 1000, "ab12")
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
        (Shape("face", 3, 1000, "ab12"), "of model general, not of face: train one"),
        (Shape("general", 4, 1000, "ab12"), "judges 3 channels and 1000 steps; general has 4 and"),
        (Shape("general", 3, 500, "ab12"), "general has 3 and 500"),
        (Shape("general", 3, 1000, "ab13"), "of other weights of model general: train one"),
    ],
)
def test_a_regressor_of_another_model_is_refused_by_name_shape_and_weights(saved, wanted, said):
    with pytest.raises(WeightsError, match=said):
        load_regressor(saved, wanted, CPU)


def test_weights_are_told_apart_by_any_tensor_and_not_by_their_file(tiny_checkpoint, tmp_path):
    net, header = load_checkpoint(tiny_checkpoint)
    state = net.state_dict()
    own = digest_of(state)
    card = {**header.card, "defaults": {"steps": 3}}
    save_checkpoint(
        tmp_path / "other card.safetensors", backbone=header.backbone, net=header.net, state=state,
        card=card,
    )  # fmt: skip
    options = UpscaleOptions(device="cpu", precision="fp32")
    for path in (tiny_checkpoint, tmp_path / "other card.safetensors"):
        model = load_model(path, "tiny", options)
        assert shape_of(model).weights == own
    assert digest_of(dict(reversed(state.items()))) == own
    for name, value in state.items():
        assert digest_of(state | {name: value + 1}) != own, name
    name, value = max(state.items(), key=lambda item: item[1].numel())
    assert value.dim() > 1
    assert digest_of(state | {name: value.reshape(-1)}) != own


def test_the_weights_of_a_model_of_several_files_are_those_of_its_files(tmp_path):
    """What a latent model is made of: read where it lies, nothing is loaded for it."""
    torch.manual_seed(0)
    one, other = {"unet.a": torch.randn(3, 700)}, {"encoder.b": torch.randn(5)}
    for name, state in (("one.ckpt", one), ("other.ckpt", other)):
        torch.save({"state_dict": state}, tmp_path / name)
    files = (tmp_path / "one.ckpt", tmp_path / "other.ckpt")
    model = replace(fake_model(), files=files)
    assert shape_of(model).weights == digest_of(one, other)
    assert shape_of(model) == shape_of(replace(model, precision=torch.bfloat16))
    torch.save({"state_dict": {"encoder.b": other["encoder.b"] + 1e-3}}, tmp_path / "other.ckpt")
    assert shape_of(model).weights != digest_of(one, other)
    assert shape_of(fake_model()).weights != shape_of(model).weights


def test_the_packaged_regressor_is_that_of_the_packaged_weights():
    model = find_model(UpscaleOptions(device="cpu"))
    judged = with_judge(model, UpscaleOptions(device="cpu", adaptive=True))
    assert judged.judge_of is not None


def test_a_regressor_of_other_weights_of_one_name_is_refused_by_the_run(
    tiny_checkpoint, tmp_path, yoda
):
    """A network that was trained on keeps its name, and its steps gain something else."""
    net, header = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.25)
    (tmp_path / "later").mkdir()
    later = tmp_path / "later" / tiny_checkpoint.name
    save_checkpoint(
        later, backbone=header.backbone, net=header.net, state=net.state_dict(), card=header.card
    )
    options = UpscaleOptions(device="cpu")
    shape = shape_of(load_model(later, tiny_checkpoint.stem, options))
    made = tmp_path / "gain.safetensors"
    save_regressor(made, Regressor(GainNet(shape.channels), shape))
    save_photo(tmp_path / "in.png", 20, 24)
    common = ("upscale", tmp_path / "in.png", "-o", tmp_path / "out.png", "--adaptive",
              "--regressor", made, "--steps", 6)  # fmt: skip
    assert yoda(*common, "--model", later).code == 0
    refused = yoda(*common, "--model", tiny_checkpoint, "--overwrite")
    assert refused.code == 5
    assert "other weights of model" in refused.err


def test_a_regressor_of_an_earlier_file_format_is_refused(saved):
    with safe_open(saved, "pt") as file:
        record = json.loads(file.metadata()[KEY])
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(state, saved, {KEY: json.dumps(record | {"format": 1})})
    with pytest.raises(WeightsError, match="has format 1; this yoda reads 2"):
        load_regressor(saved, SHAPE, CPU)
    save_file(state, saved, {KEY: json.dumps(record | {"stride": 1 << 40})})
    with pytest.raises(WeightsError, match="is damaged"):
        load_regressor(saved, SHAPE, CPU)


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
