"""Our compact networks as ONNX graphs: onnxruntime gives what torch gives, at any size."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from yoda_cli.errors import UsageError
from yoda_cli.models.base import Condition
from yoda_cli.models.onnx_graphs import PARTS, check_exportable, onnx_graph
from yoda_cli.models.srdiff import SRDIFF_COMPACT, SRDIFF_DF2K, SRDiff, SRDiffConfig

SMALL = SRDiffConfig(
    dim=8, dim_mults=(1, 2), unet_blocks=1, unshuffle=4, mask_input=True, encoder="residual",
    encoder_channels=8, encoder_blocks=1, num_steps=20, alpha_bar_min=1e-4, prediction="x0",
    residual_scale=3.0, clip_z0=0.0, lr_divisor=255,
)  # fmt: skip


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = SRDiff(SMALL).eval()
    for parameter in net.parameters():  # the base begins at zero
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return net


@pytest.fixture(scope="module")
def sessions(net):
    return {part: onnxruntime.InferenceSession(onnx_graph(net, part)) for part in PARTS}


def run(session, **tensors):
    made = session.run(None, {name: value.numpy() for name, value in tensors.items()})
    return [torch.from_numpy(value) for value in made]


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 2, 2), (1, 12, 34), (3, 6, 4)])
@torch.inference_mode()
@pytest.mark.slow
def test_onnxruntime_gives_what_torch_gives(net, sessions, batch, height, width):
    torch.manual_seed(1)
    lr, strength = torch.rand(batch, 3, height, width), torch.rand(batch)
    condition = net.encode(lr, strength)
    made = run(sessions["encoder"], lr=lr, strength=strength)
    for found, name in zip(made, ("features", "anchor"), strict=False):
        torch.testing.assert_close(found, condition.maps[name], atol=1e-4, rtol=0)
    torch.testing.assert_close(made[2], condition.attention, atol=1e-4, rtol=0)

    z_t, t = torch.randn(batch, 3, 4 * height, 4 * width), torch.randint(1, 21, (batch,))
    mask = (torch.rand(batch, 1, 4 * height, 4 * width) > 0.5).float()
    features = made[0]
    (z_0,) = run(sessions["denoiser"], z_t=z_t, t=t, features=features, mask=mask)
    expected = net.denoise(z_t, t, Condition(z_t, {"features": features}), mask)
    torch.testing.assert_close(z_0, expected, atol=1e-4, rtol=0)
    other = run(sessions["denoiser"], z_t=z_t, t=21 - t, features=features, mask=1 - mask)[0]
    assert (other - z_0).abs().max() > 1e-3  # the time and the mask are read


@torch.inference_mode()
@pytest.mark.slow
def test_the_metadata_holds_what_makes_a_picture_of_the_graphs(net, sessions):
    said = sessions["denoiser"].get_modelmeta().custom_metadata_map["yoda"]
    facts = json.loads(said)
    assert (facts["scale"], facts["stride"], facts["num_steps"]) == (4, 2, 20)
    np.testing.assert_allclose(facts["alpha_bar"], net.schedule.alpha_bar.numpy(), rtol=1e-6)
    z_0, condition = torch.randn(1, 3, 8, 8), net.encode(torch.rand(1, 3, 2, 2), 0.0)
    expected = net.decode(z_0, condition)
    torch.testing.assert_close(condition.maps["anchor"] + facts["residual"] * z_0, expected)


def test_only_compact_networks_go():
    assert check_exportable(SRDiff(SRDIFF_COMPACT), "general").is_compact
    with torch.device("meta"):
        published = SRDiff(SRDIFF_DF2K)
    with pytest.raises(UsageError, match="df2k is no compact network"):
        check_exportable(published, "df2k")
