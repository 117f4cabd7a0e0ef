"""Published key lists, inferred configurations, compact forms."""

import json
import os
from pathlib import Path

import pytest
import torch
from fakes import photo

from yoda_cli.errors import WeightsError
from yoda_cli.models import BACKBONES
from yoda_cli.models.base import crop_condition
from yoda_cli.models.published import backbone_for, load_reference
from yoda_cli.models.sr3 import (
    SR3,
    SR3_16_128,
    SR3_64_512,
    SR3_COMPACT,
    SR3Config,
)
from yoda_cli.models.sr3 import infer_config as infer_sr3
from yoda_cli.models.srdiff import (
    SRDIFF_CELEBA,
    SRDIFF_COMPACT,
    SRDIFF_DF2K,
    SRDiff,
)
from yoda_cli.models.srdiff import infer_config as infer_srdiff
from yoda_cli.tiling.windows import Window
from yoda_cli.weights.structures import SCHEDULE_BUFFERS

OWN = Path(__file__).parents[1] / "data" / "golden" / "keys"
GIVEN = Path(os.environ.get("YODA_GOLDEN_DIR", OWN.parent)) / "keys"
KEYS = GIVEN if GIVEN.is_dir() else OWN
PUBLISHED = ["sr3_16_128", "sr3_64_512", "srdiff_celeb_x8", "srdiff_df2k_x4_nb17_nf64"]
PUBLISHED += ["srdiff_df2k_x4_as_configured_nb8_nf32"]


def shapes(name):
    rows = json.loads((KEYS / f"{name}.json").read_text())["keys"]
    return {key: tuple(shape) for key, shape, *_ in rows}


def published_state(name):
    with torch.device("meta"):
        return {k: torch.empty(s) for k, s in shapes(name).items() if k not in SCHEDULE_BUFFERS}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_checkpoint_has_the_keys_and_shapes_of_our_network(name):
    with torch.device("meta"):
        net = backbone_for(published_state(name), name)
    ours = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    theirs = shapes(name)
    assert set(theirs) - set(ours) == SCHEDULE_BUFFERS
    assert {k: v for k, v in theirs.items() if k not in SCHEDULE_BUFFERS} == ours


def test_configurations_are_inferred_from_shapes():
    from dataclasses import replace

    for name, config in (("sr3_16_128", SR3_16_128), ("sr3_64_512", SR3_64_512)):
        assert infer_sr3(published_state(name)) == replace(config, dropout=0.0)
    assert infer_srdiff(published_state("srdiff_celeb_x8")) == SRDIFF_CELEBA
    assert infer_srdiff(published_state("srdiff_df2k_x4_nb17_nf64")) == SRDIFF_DF2K


def test_the_unconditional_sr3_network_is_recognised_and_refused():
    state = published_state("sr3_16_128")
    state["denoise_fn.downs.0.weight"] = torch.empty(64, 3, 3, 3, device="meta")
    with pytest.raises(WeightsError, match=r"unconditional SR3 network \(3 input channels\)"):
        backbone_for(state, "I1560000_E91_gen.pth")


def small_sr3():
    torch.manual_seed(0)
    config = SR3Config(inner_channel=32, channel_mults=(1, 2), res_blocks=1, attn_levels=(1,))
    return SR3(config).eval()


def test_a_published_file_loads_with_its_schedule_buffers_and_wrapper(tmp_path):
    net = small_sr3()
    extra = {name: torch.zeros(3) for name in SCHEDULE_BUFFERS}
    torch.save({"state_dict": {"model": {**net.state_dict(), **extra}}}, tmp_path / "a.pth")
    loaded = load_reference(tmp_path / "a.pth")
    for key, value in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


@pytest.mark.parametrize("keep", [0, 1, 100, 5000])
def test_a_truncated_checkpoint_is_refused(tmp_path, keep):
    torch.save(small_sr3().state_dict(), tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"a\.pth"):
        load_reference(tmp_path / "a.pth")


def compact(kind, config):
    torch.manual_seed(0)
    net = kind(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize(("kind", "config"), [(SRDiff, SRDIFF_COMPACT), (SR3, SR3_COMPACT)])
def test_compact_networks_keep_the_contract(kind, config):
    net = compact(kind, config)
    assert sum(p.numel() for p in net.parameters()) < 6e6
    lr = photo(12, 20)
    with torch.no_grad():
        condition = net.encode(lr)
        z = torch.randn(1, 3, 48, 80)
        mask = torch.ones(1, 1, 48, 80, dtype=torch.bool)
        z_0 = net.predict(z, 700, condition, mask)
        assert z_0.shape == condition.z_lr.shape == z.shape
        assert z_0.dtype == torch.float32
        hr = photo(48, 80)
        assert torch.allclose(net.decode(net.to_z(hr, condition), condition), hr, atol=1e-6)
        assert torch.equal(net.decode(condition.z_lr, condition), condition.maps["base"])
        assert not torch.equal(z_0, net.predict(z, 300, condition, mask))
        assert not torch.equal(z_0, net.predict(z, 700, condition, ~mask))
    assert condition.attention.shape == (1, 1, 12, 20)
    assert 0 <= condition.attention.min() <= condition.attention.max() <= 1


@pytest.mark.parametrize(("kind", "config"), [(SRDiff, SRDIFF_COMPACT), (SR3, SR3_COMPACT)])
def test_compact_networks_are_local(kind, config):
    net = compact(kind, config)
    reach = 400  # output pixels: the receptive field, rounded up
    lr = photo(16, 160)
    other = lr.clone()
    other[..., 150:] = 1 - other[..., 150:]
    mask = torch.ones(1, 1, 64, 640, dtype=torch.bool)
    z = torch.randn(1, 3, 64, 640)
    with torch.no_grad():
        first = net.predict(z, 500, net.encode(lr), mask)
        second = net.predict(z, 500, net.encode(other), mask)
    assert not torch.equal(first[..., 600:], second[..., 600:])
    assert torch.allclose(first[..., : 600 - reach], second[..., : 600 - reach], atol=1e-6)


def test_group_normalised_networks_are_not_local_and_say_so_by_their_tests():
    net = small_sr3()
    lr = photo(4, 32)
    other = lr.clone()
    other[..., 31:] = 1 - other[..., 31:]
    mask = torch.ones(1, 1, 32, 256, dtype=torch.bool)
    with torch.no_grad():
        z = torch.randn(1, 3, 32, 256)
        a, b = (net.denoise(z, torch.tensor([500]), net.encode(x), mask) for x in (lr, other))
    assert not torch.allclose(a[..., :64], b[..., :64], atol=1e-6)


def test_a_window_of_a_condition_is_cut_from_every_map():
    net = compact(SRDiff, SRDIFF_COMPACT)
    with torch.no_grad():
        condition = net.encode(photo(16, 16))
    part = crop_condition(condition, Window(16, 32, 48, 64))
    assert part.z_lr.shape == (1, 3, 32, 32)
    assert torch.equal(part.maps["features"], condition.maps["features"][..., 4:12, 8:16])
    assert torch.equal(part.attention, condition.attention[..., 4:12, 8:16])
    with pytest.raises(ValueError, match="does not lie on a grid"):
        crop_condition(condition, Window(2, 0, 48, 64))


def test_configurations_are_plain_data_and_unknown_keys_are_refused():
    for name, settings in (("srdiff", {"scale": 4, "dim_mults": [1, 2]}), ("sr3", {"scale": 4})):
        with torch.device("meta"):
            assert BACKBONES[name](settings).geometry.scale == 4
        with pytest.raises(ValueError, match="unknown settings"):
            BACKBONES[name]({"sclae": 4})
