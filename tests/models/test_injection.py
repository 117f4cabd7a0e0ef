"""Progressive feature injection: nothing until it is trained, then steered by what steps gained."""

import json
from dataclasses import replace

import pytest
import torch
from fakes import always, enlarge, photo
from safetensors import safe_open

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.adaptive import Gains
from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.models import BACKBONES
from yoda_cli.models.base import Condition, crop_condition, stack_conditions
from yoda_cli.models.checkpoint import load_checkpoint, save_checkpoint
from yoda_cli.models.loading import load_model
from yoda_cli.models.nets.injection import Injection
from yoda_cli.models.onnx_graphs import check_exportable
from yoda_cli.tiling.windows import Window
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve

SR3_NET = {
    "scale": 4, "inner_channel": 8, "channel_mults": [1, 2], "res_blocks": 1, "attn_levels": [],
    "mid_attention": False, "norm": "channel", "dropout": 0.0, "num_steps": 20,
    "schedule": "cosine", "alpha_bar_min": 1e-4, "prediction": "x0", "clip_z0": 0.0,
    "unshuffle": 4, "mask_input": True, "encoder_channels": 8, "encoder_blocks": 1,
}  # fmt: skip
CARD = {"defaults": {"attention": "uniform", "lower_bound": 0.3, "steps": 8, "sampler": "ddim"}}
OPTIONS = UpscaleOptions(adaptive=True, steps=8, block=256, exact=True)
LR = photo(16, 100)  # 64×400 output pixels: two regions


def perturbed(module):
    """φ as training might leave it."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.injection.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def saved(path, backbone, settings, net):
    save_checkpoint(path, backbone=backbone, net=settings, state=net.state_dict(), card=CARD)
    return path


@pytest.fixture(params=["srdiff", "sr3"])
def networks(request, tiny_checkpoint):
    """(name, settings, a network without injection, the same with it, untrained)."""
    if request.param == "srdiff":
        plain, header = load_checkpoint(tiny_checkpoint)
        settings = dict(header.net)
    else:
        torch.manual_seed(0)
        settings = SR3_NET
        plain = BACKBONES["sr3"](settings).eval()
    told = BACKBONES[request.param]({**settings, "injection": True}).eval()
    lacking = told.load_state_dict(plain.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    assert {key.split(".")[0] for key in lacking.missing_keys} == {"injection"}
    return request.param, settings, plain, told


@torch.inference_mode()
def test_it_begins_as_nothing_whatever_was_gained(networks):
    _, _, plain, told = networks
    lr, mask = torch.rand(2, 3, 8, 12), torch.ones(2, 1, 32, 48)
    z_t, t = torch.randn(2, 3, 32, 48), torch.tensor([7, 3])
    expected = plain.denoise(z_t, t, plain.encode(lr), mask)
    condition = told.encode(lr)
    for gains in (None, torch.zeros(2, 2), torch.tensor([[0.5, -0.5], [0.1, 0.9]])):
        made = told.denoise(z_t, t, replace(condition, gains=gains), mask)
        assert torch.equal(made, expected)


@torch.inference_mode()
def test_once_trained_each_picture_is_steered_by_its_own_gains(networks):
    _, _, _, told = networks
    perturbed(told)
    lr, mask = torch.rand(1, 3, 8, 12).expand(2, -1, -1, -1), torch.ones(2, 1, 32, 48)
    z_t, t = torch.randn(1, 3, 32, 48).expand(2, -1, -1, -1), torch.tensor([7, 7])
    condition = told.encode(lr)

    def made(*rows):
        return told.denoise(z_t, t, replace(condition, gains=torch.tensor(rows)), mask)

    same, other = made([0.1, 0.0], [0.1, 0.0]), made([0.1, 0.0], [0.0, 0.1])
    assert torch.equal(same[0], other[0])
    assert (same[1] - other[1]).abs().max() > 1e-4
    nothing = told.denoise(z_t, t, condition, mask)
    assert torch.equal(made([0.0, 0.0], [0.0, 0.0]), nothing)


def test_features_keep_their_shape_and_no_pixel_sees_another():
    injection = Injection(6)
    shapes = {name: tuple(p.shape) for name, p in injection.named_parameters()}
    assert shapes == {
        "features.weight": (16, 6, 1, 1), "features.bias": (16,), "gains.weight": (16, 2),
        "gains.bias": (16,), "out.weight": (12, 16, 1, 1), "out.bias": (12,),
    }  # fmt: skip
    injection.out.weight.data.normal_()
    features, gains = torch.rand(1, 6, 5, 7), torch.tensor([[0.1, 0.2]])
    made = injection(features, gains)
    features[..., 2, 3] += 1
    changed = (injection(features, gains) != made).any(1)[0].nonzero().tolist()
    assert made.shape == features.shape
    assert changed == [[2, 3]]


def test_gains_go_where_their_pictures_go():
    def condition(value):
        gains = torch.full((1, 2), value)
        return Condition(torch.zeros(1, 3, 8, 8), {"m": torch.zeros(1, 1, 2, 2)}, gains=gains)

    both = stack_conditions([condition(0.1), condition(0.2)])
    assert torch.equal(both.gains, torch.tensor([[0.1, 0.1], [0.2, 0.2]]))
    cut = crop_condition(both, Window(0, 0, 4, 4))
    assert torch.equal(cut.gains, both.gains)


def test_only_a_compact_network_takes_it():
    for name in ("srdiff", "sr3"):
        with pytest.raises(ValueError, match="injection is for compact networks"):
            BACKBONES[name]({"injection": True})


def test_a_run_gives_the_same_bytes_before_training_and_other_ones_after(tmp_path, networks):
    """With ``--adaptive`` by what each region gained; without it gains are zero."""
    name, settings, plain, told = networks
    steered = {**settings, "injection": True}
    files = [
        saved(tmp_path / "plain.safetensors", name, settings, plain),
        saved(tmp_path / "told.safetensors", name, steered, told),
        saved(tmp_path / "trained.safetensors", name, steered, perturbed(told)),
    ]

    def run(path, gains=None, **changes):
        model = load_model(path, path.stem, OPTIONS)
        if gains is not None:
            model = replace(model, judge_of=always(gains))
        return enlarge(LR, model, replace(OPTIONS, **changes)).image

    little, more = Gains(0.0, 0.001), Gains(0.015, 0.001)  # the same leaps
    assert torch.equal(run(files[0], more), run(files[1], more))
    runs = [run(files[2], judge) for judge in (little, more)]
    assert not torch.equal(*runs)
    uniform = [run(path, adaptive=False, steps=2) for path in files]
    assert torch.equal(uniform[0], uniform[1])
    assert not torch.equal(uniform[0], uniform[2])


def test_regions_that_share_a_call_are_told_each_its_own_gains(tmp_path, tiny_checkpoint):
    plain, header = load_checkpoint(tiny_checkpoint)
    settings = {**header.net, "injection": True}
    told = BACKBONES["srdiff"](settings)
    told.load_state_dict(plain.state_dict(), strict=False)
    path = saved(tmp_path / "told.safetensors", "srdiff", settings, perturbed(told))
    model = load_model(path, "told", OPTIONS)

    def by_place(view):
        return always(Gains(0.015, 0.0) if view.window.left == 0 else Gains(0.0, 0.0))(view)

    model = replace(model, judge_of=by_place)
    settings = resolve(OPTIONS, model)
    alone, together = (
        upscale_tensor(LR, model, replace(settings, group=group)).image for group in (1, 2)
    )
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_a_checkpoint_keeps_it_and_no_other_is_filled_with_it(tmp_path, networks):
    name, settings, plain, told = networks
    steered = {**settings, "injection": True}
    path = saved(tmp_path / "told.safetensors", name, steered, perturbed(told))
    loaded, header = load_checkpoint(path)
    assert header.net["injection"] is True
    assert loaded.takes_gains
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["yoda"])["net"]["injection"] is True
        kept = file.get_tensor("injection.out.weight")
    assert torch.equal(loaded.state_dict()["injection.out.weight"], kept.float())
    wrong = saved(tmp_path / "wrong.safetensors", name, steered, plain)
    with pytest.raises(WeightsError, match="larger network than it holds"):
        load_checkpoint(wrong)


def test_no_graph_is_told_of_gains(networks):
    _, _, plain, told = networks
    assert check_exportable(plain, "plain") is plain
    with pytest.raises(UsageError, match="told reads what each step of --adaptive gained"):
        check_exportable(told, "told")
