"""The restorer of damaged pictures in a run: where it works, what it costs, where it is spared."""

import numpy as np
import pytest
import torch
from tiny_recipe import NET

from yoda_cli.config import SampleDefaults, UpscaleOptions
from yoda_cli.models.model import Model
from yoda_cli.models.restoring import FROM, FULL
from yoda_cli.models.srdiff import from_config
from yoda_cli.tiling.cost import Costs
from yoda_cli.upscaling import picture_plan
from yoda_cli.upscaling.blocks import Conditions
from yoda_cli.upscaling.conditioning import attention_map, encode, encoder_tiles
from yoda_cli.upscaling.memory_limits import make_blocks
from yoda_cli.upscaling.picture_plan import RESTORING, costs_for
from yoda_cli.upscaling.resolve import resolve

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = from_config(NET | {"restorer_blocks": 1}).eval()
    return Model("tiny", net, SampleDefaults(steps=2), CPU, torch.float32, {})


@pytest.fixture
def restored(model, monkeypatch):
    """Sizes (h, w) of what was restored."""
    sizes, forward = [], model.backbone.restorer.forward

    def counted(lr):
        sizes.append(tuple(lr.shape[-2:]))
        return forward(lr)

    monkeypatch.setattr(model.backbone.restorer, "forward", counted)
    return sizes


def settings_of(model, denoise, **changes):
    return resolve(UpscaleOptions(device="cpu", denoise=denoise, **changes), model)


def test_only_damage_costs_more(model, monkeypatch):
    monkeypatch.setattr(picture_plan, "costs_of", lambda _: Costs(1.0, 1.0, 2.0, 1.0))
    for strength, encode_cost in ((0.0, 2.0), (FROM, 2.0), (FULL, 2.0 * (1 + RESTORING))):
        costs = costs_for(model, settings_of(model, strength))
        assert costs == Costs(1.0, 1.0, encode_cost, 1.0)


@torch.inference_mode()
def test_a_map_needs_no_restoring(model, restored):
    lr = torch.rand(1, 3, 16, 16)
    settings = settings_of(model, FULL)
    attention_map(lr, model, settings)
    assert restored == []
    encode(lr, model, settings)
    assert restored == [(16, 16)]


@torch.inference_mode()
@pytest.mark.parametrize(("keep_bytes", "again"), [(1 << 30, 0), (0, 4)])
def test_a_large_picture_is_restored_once(model, restored, keep_bytes, again):
    """But for the first block, of which nobody knows yet whether it can be kept."""
    lr = torch.rand(1, 3, 48, 48)
    settings = settings_of(model, FULL)
    blocks = make_blocks(192, 192, 8, 96, 32)
    assert len(blocks) == 4
    conditions = Conditions(lr, model, settings, blocks, keep_bytes=keep_bytes)
    found = conditions.attention()
    assert len(restored) == (4 if keep_bytes else 1)
    restored.clear()
    for index in range(4):
        conditions.take(index)
    assert len(restored) == again
    torch.testing.assert_close(found[..., :8, :8], attention_map(lr, model, settings)[..., :8, :8])


def test_exact_windows_see_as_far_as_the_restorer_needs(model):
    tiles = settings_of(model, FULL, exact=True).tiles
    near, far = (encoder_tiles(1024, 1024, model, tiles, restored=r)[0] for r in (False, True))
    assert far.window.height - far.core.height > near.window.height - near.core.height
    assert far.core.height > near.core.height  # it sees more around it, which is shared then
    asked = settings_of(model, FULL, exact=True, tile=128).tiles
    assert encoder_tiles(1024, 1024, model, asked, restored=True)[0].core.height == 128


@torch.inference_mode()
def test_tiles_of_a_damaged_picture_agree_with_the_whole():
    """With the packaged weights: what lies beyond an encoder's window is hardly missed."""
    from yoda_cli.models.loading import find_model

    model = find_model(UpscaleOptions(model="general", device="cpu", precision="fp32"))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:160] / 9.0
    plain = np.stack([np.sin(x + k) * np.cos(y * (1 + k / 3)) for k in range(3)]) * 0.3 + 0.5
    lr = torch.from_numpy((plain + rng.normal(0, 0.05, plain.shape)).clip(0, 1)).float()[None]
    settings = settings_of(model, 0.6)
    whole = encode(lr, model, settings).maps["base"]
    part = encode(lr[..., :96], model, settings).maps["base"]  # its last 24 columns are its halo
    apart = (whole[..., : 4 * 72] - part[..., : 4 * 72])[..., -32:]
    assert -10 * apart.square().mean().log10() > 45  # dB
