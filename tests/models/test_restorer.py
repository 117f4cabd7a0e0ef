"""What restores the base of damaged pictures in a compact network, and of no others."""

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from tiny_recipe import NET

from yoda_cli.models.nets.restorer import Restorer
from yoda_cli.models.onnx_graphs import onnx_graph
from yoda_cli.models.regressors import digest_of
from yoda_cli.models.restoring import BUSY, FROM, FULL, share_of, with_restored
from yoda_cli.models.srdiff import from_config

LR = (2, 3, 12, 16)


def network(blocks):
    """All but the restorer is the same whatever ``blocks`` are."""
    torch.manual_seed(0)
    plain = from_config(NET)
    for parameter in plain.parameters():  # the base begins at zero
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    net = from_config(NET | {"restorer_blocks": blocks})
    net.load_state_dict(plain.state_dict(), strict=False)
    return net.eval()


def test_a_clean_picture_keeps_its_base_and_the_whole_change_comes_with_the_damage():
    assert 0 < FROM < FULL < 1
    shares = share_of(torch.tensor([0.0, FROM, FROM + (FULL - FROM) / 3, FULL, 1.0]))
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.0, 1 / 3, 1.0, 1.0]))


def test_of_a_restored_picture_the_fine_detail_is_taken_and_the_wide_means_stay():
    ramp = torch.linspace(0.2, 0.8, 96).expand(1, 3, 96, 96)
    stripes = 0.1 * torch.tensor([-1.0, 1.0]).repeat(48).expand(1, 3, 96, 96)
    shifted = 0.9 * ramp + 0.1 + stripes  # less contrast, lighter, sharper
    for share in (0.0, 0.5, 1.0):
        found, _ = with_restored(ramp, shifted, torch.full((1, 1, 1, 1), share))
        middle = (slice(None), slice(None), slice(24, 72), slice(24, 72))
        expected = (ramp + share * stripes)[middle]
        torch.testing.assert_close(found[middle], expected, atol=0.01, rtol=0)


def test_blotches_of_colour_go_and_the_colour_of_the_whole_stays():
    grey, green = torch.full((1, 3, 256, 256), 0.5), torch.tensor([-0.05, 0.05, 0.0])
    base = grey + 0.1 * green.view(1, 3, 1, 1)
    base[..., 96:160, 96:160] += green.view(3, 1, 1)  # as large as a block of a codec's colours
    redder = grey + torch.tensor([0.08, -0.02, -0.06]).view(1, 3, 1, 1)
    found, _ = with_restored(base, redder, torch.ones(1, 1, 1, 1))
    inside, outside = found[..., 128, 128], found[..., 16, 16]
    assert (inside - outside).abs().max() < 0.3 * 0.05
    torch.testing.assert_close(found.mean((2, 3)), base.mean((2, 3)), atol=2e-3, rtol=0)


def test_drawn_detail_counts_where_the_restored_picture_has_some():
    calm = torch.full((1, 3, 64, 64), 0.5)
    half = calm.clone()
    half[..., 32:] += 4 * BUSY * torch.tensor([-1.0, 1.0]).repeat(16)
    share = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    _, detail = with_restored(calm.expand(3, -1, -1, -1), half.expand(3, -1, -1, -1), share)
    assert detail.shape == (3, 1, 64, 64)
    assert detail.min() >= 0
    assert detail.max() <= 1
    torch.testing.assert_close(detail[..., 48], torch.ones(3, 1, 64))
    torch.testing.assert_close(detail[..., 8], (1 - share[..., 0]).expand(3, 1, 64))


def test_arrays_and_tensors_become_the_same():
    base, restored = torch.rand(2, 3, 20, 28), torch.rand(2, 3, 20, 28)
    given = (base, restored, torch.tensor([0.3, 1.0]).view(2, 1, 1, 1))
    for one, other in zip(
        with_restored(*given), with_restored(*(x.numpy() for x in given)), strict=True
    ):
        torch.testing.assert_close(one, torch.from_numpy(other))


@torch.inference_mode()
def test_a_clean_picture_is_what_it_is_without(monkeypatch):
    plain, net, lr = network(0), network(1), torch.rand(LR)
    expected, found = plain.encode(lr), net.encode(lr)
    for name, value in expected.maps.items():
        assert torch.equal(found.maps[name], value), name
    monkeypatch.setattr(net.restorer, "forward", None)  # not computed at all
    net.encode(lr, torch.tensor([0.0, FROM]))


@torch.inference_mode()
def test_the_base_of_a_damaged_picture_is_mixed_with_the_restored_one():
    net, lr = network(1), torch.rand(LR)
    restored = net.restorer(lr)
    for share in (0.25, 1.0):
        strength = FROM + share * (FULL - FROM)
        base = network(0).encode(lr, strength).maps["base"]
        maps = net.encode(lr, strength).maps
        expected = with_restored(base, restored, torch.full((1, 1, 1, 1), share))
        torch.testing.assert_close((maps["base"], maps["detail"]), expected)
        assert maps["anchor"] is maps["base"]


@torch.inference_mode()
def test_of_a_batch_the_damaged_ones_get_it():
    net, lr = network(1), torch.rand(LR)
    both = net.encode(lr, torch.tensor([0.0, 0.6]))
    for i, strength in enumerate((0.0, 0.6)):
        alone = net.encode(lr[i : i + 1], strength)
        torch.testing.assert_close(both.maps["base"][i], alone.maps["base"][0])
    assert (both.maps["detail"][0] == 1).all()
    assert both.maps["detail"][1].min() < 0.9
    assert (both.maps["base"][1] - network(0).encode(lr, 0.6).maps["base"][1]).abs().max() > 1e-3


@torch.inference_mode()
def test_the_denoiser_draws_the_same_and_its_share_of_it_stands_in_the_picture():
    plain, net, lr = network(0), network(1), torch.rand(LR)
    without, with_it = plain.encode(lr, 0.6), net.encode(lr, 0.6)
    assert torch.equal(without.maps["features"], with_it.maps["features"])
    z_0 = torch.randn(2, 3, 48, 64)
    drawn = plain.decode(z_0, without) - without.maps["base"]
    expected = with_it.maps["base"] + with_it.maps["detail"] * drawn
    torch.testing.assert_close(net.decode(z_0, with_it), expected)


@torch.inference_mode()
def test_its_layers_are_those_of_the_published_network_in_their_order():
    """Written out, so that a wrong slope, residual or shuffle is seen."""
    torch.manual_seed(1)
    net, lr = Restorer(1).eval(), torch.rand(1, 3, 6, 5)
    state = dict(net.named_parameters())

    def conv(name, x):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    first = x = conv("conv_first", lr)
    for block in ("RDB1", "RDB2", "RDB3"):
        seen = [x]
        for i in range(1, 5):
            seen.append(F.leaky_relu(conv(f"body.0.{block}.conv{i}", torch.cat(seen, 1)), 0.2))
        x = x + 0.2 * conv(f"body.0.{block}.conv5", torch.cat(seen, 1))
    features = first + conv("conv_body", first + 0.2 * x)
    y = F.leaky_relu(F.pixel_shuffle(conv("conv_up", features), 2), 0.2)
    y = F.pixel_shuffle(conv("conv_last", F.leaky_relu(conv("conv_hr", y), 0.2)), 2)
    assert y.shape == (1, 3, 24, 20)
    torch.testing.assert_close(net(lr), y)


@pytest.mark.parametrize(
    "wrong", [{"scale": 2, "unshuffle": 2}, {"encoder": "rrdb", "unshuffle": 1}]
)
def test_other_networks_have_none(wrong):
    with pytest.raises(ValueError, match="restorer"):
        from_config(NET | {"restorer_blocks": 1, **wrong})


@torch.inference_mode()
@pytest.mark.parametrize("part", ["encoder", "clean-encoder"])
@pytest.mark.slow
def test_as_graphs(part):
    net, lr = network(1), torch.rand(LR)
    session = onnxruntime.InferenceSession(onnx_graph(net, part))
    for strength in (torch.zeros(2), torch.tensor([0.0, 0.6])):
        if part == "clean-encoder" and strength.any():
            continue
        inputs = {"lr": lr.numpy(), "strength": strength.numpy()}
        made = session.run(None, inputs)
        maps = net.encode(lr, strength).maps
        assert np.allclose(made[1], maps["base"], atol=1e-4)
        assert len(made) == (4 if part == "encoder" else 3)
        if "detail" in maps:
            assert np.allclose(made[3], maps["detail"], atol=1e-4)


def test_a_regressor_is_bound_to_what_makes_the_steps():
    """Not to what makes the base of damaged pictures."""
    plain, net = network(0).state_dict(), network(1).state_dict()
    assert digest_of(net) == digest_of(plain)
    net["encoder.base_head.bias"] = net["encoder.base_head.bias"] + 1
    assert digest_of(net) != digest_of(plain)
