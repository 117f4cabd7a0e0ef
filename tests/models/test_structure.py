"""What a compact network adds to the base of damaged pictures, and of no others."""

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_recipe import NET

from yoda_cli.models.nets.encoder import GAIN, LIMIT
from yoda_cli.models.onnx_graphs import onnx_graph
from yoda_cli.models.regressors import digest_of
from yoda_cli.models.srdiff import from_config

LR = (2, 3, 12, 16)


def network(blocks):
    """All but what is added is the same whatever ``blocks`` are."""
    torch.manual_seed(0)
    plain = from_config(NET)
    for parameter in plain.parameters():  # the base begins at zero
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    net = from_config(NET | {"structure_blocks": blocks})
    net.load_state_dict(plain.state_dict(), strict=False)
    return net.eval()


@torch.inference_mode()
def test_a_clean_picture_is_what_it_is_without(monkeypatch):
    plain, net, lr = network(0), network(1), torch.rand(LR)
    expected, found = plain.encode(lr), net.encode(lr)
    for name, value in expected.maps.items():
        assert torch.equal(found.maps[name], value), name
    monkeypatch.setattr(net.encoder, "structure", None)  # not computed at all
    net.encode(lr, torch.zeros(2))


@torch.inference_mode()
def test_at_first_it_is_half_of_the_bases_detail():
    plain, net, lr = network(0), network(1), torch.rand(LR)
    lr[..., :8] = 0.4  # flat, so that little is added there
    for each in (plain, net):
        for value in each.encoder.base_head.parameters():
            value.zero_()
    base, found = (each.encode(lr, 0.5).maps["base"] for each in (plain, net))
    x = torch.arange(-9.0, 10)
    line = torch.exp(-x.square() / 18)
    kernel = (line[:, None] * line / line.sum() ** 2).expand(3, 1, -1, -1)
    blurred = torch.nn.functional.conv2d(
        torch.nn.functional.pad(base, (9,) * 4, mode="replicate"), kernel, groups=3
    )
    added = GAIN * (base - blurred)
    mean = torch.nn.functional.avg_pool2d(
        added.abs().mean(1, keepdim=True), 5, 1, 2, count_include_pad=False
    )
    assert (mean > LIMIT).any()
    assert (mean < LIMIT).any()
    held = torch.where(mean > LIMIT, added * (LIMIT / mean).sqrt(), added)
    torch.testing.assert_close(found, base + held, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_of_a_batch_the_damaged_ones_get_it():
    net, lr = network(1), torch.rand(LR)
    both = net.encode(lr, torch.tensor([0.0, 0.6]))
    for i, strength in enumerate((0.0, 0.6)):
        alone = net.encode(lr[i : i + 1], strength)
        torch.testing.assert_close(both.maps["base"][i], alone.maps["base"][0])
    assert (both.maps["base"][1] - network(0).encode(lr, 0.6).maps["base"][1]).abs().max() > 1e-3


@torch.inference_mode()
def test_the_denoiser_draws_the_same_and_all_of_it_stands_in_the_picture():
    plain, net, lr = network(0), network(1), torch.rand(LR)
    without, with_it = plain.encode(lr, 0.6), net.encode(lr, 0.6)
    assert torch.equal(without.maps["features"], with_it.maps["features"])
    added = with_it.maps["base"] - without.maps["base"]
    z_0 = torch.randn(2, 3, 48, 64)
    torch.testing.assert_close(net.decode(z_0, with_it), plain.decode(z_0, without) + added)


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
        assert np.allclose(made[1], net.encode(lr, strength).maps["base"], atol=1e-4)


def test_a_regressor_is_bound_to_what_makes_the_steps():
    """Not to what is added to the base."""
    plain, net = network(0).state_dict(), network(1).state_dict()
    assert digest_of(net) == digest_of(plain)
    net["encoder.base_head.bias"] = net["encoder.base_head.bias"] + 1
    assert digest_of(net) != digest_of(plain)
