"""SR3 and the RRDB encoder: conventions, options, and that the golden checks notice mistakes."""

import json
import math
from pathlib import Path

import golden
import pytest
import torch
import torch.nn.functional as F
from fakes import photo
from torch import nn

from yoda_cli.diffusion.schedule import NoiseSchedule, predict_z0
from yoda_cli.images.resize import imresize
from yoda_cli.models.nets import sr3 as nets
from yoda_cli.models.nets.rrdb import RRDBNet
from yoda_cli.models.nets.sr3 import SR3UNet
from yoda_cli.models.sr3 import (
    SR3,
    SR3_16_128,
    SR3_64_512,
    SR3Config,
)
from yoda_cli.weights.structures import SCHEDULE_BUFFERS

GOLDENS = Path(__file__).parents[1] / "data" / "golden"
MANIFEST = json.loads((GOLDENS / "MANIFEST.json").read_text())
TINY = SR3Config(inner_channel=32, channel_mults=(1, 2), res_blocks=1, attn_levels=(1,))


class Recorder(nn.Module):
    """Stands for the network: keeps what it is shown, answers with a constant."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, level, features):
        self.x, self.level, self.features = x, level, features
        return torch.full_like(x[:, :3], self.value)


def recorded(value=0.3, config=TINY):
    net = SR3(config).eval()
    net.denoise_fn = Recorder(value)
    return net


def everywhere(z):
    return torch.ones_like(z[:, :1], dtype=torch.bool)


@pytest.mark.parametrize(
    ("name", "config"), [("sr3_16_128", SR3_16_128), ("sr3_64_512", SR3_64_512)]
)
def test_keys_stand_in_the_published_order(name, config):
    rows = json.loads((GOLDENS / "keys" / f"{name}.json").read_text())["keys"]
    with torch.device("meta"):
        ours = list(SR3(config).state_dict())
    assert ours == [key for key, *_ in rows if key not in SCHEDULE_BUFFERS]


def test_the_unrefined_picture_is_the_bicubic_enlargement_in_minus_one_to_one():
    net, lr = recorded(), photo(4, 6)
    condition = net.encode(lr)
    assert torch.equal(condition.z_lr, imresize(lr, scale=8) * 2 - 1)
    assert condition.attention is None
    z_0 = torch.linspace(-1, 1, 5).expand(1, 3, 5, 5)
    assert torch.equal(net.decode(z_0, condition), (z_0 + 1) / 2)
    assert torch.allclose(net.to_z(net.decode(z_0, condition), condition), z_0, atol=1e-6)


def test_the_network_sees_bicubic_then_state_and_the_level_of_its_time():
    net, lr = recorded(), photo(4, 6).expand(2, -1, -1, -1)
    condition = net.encode(lr)
    z_t = torch.randn(2, 3, 32, 48)
    net.denoise(z_t, torch.tensor([1, 2000]), condition, everywhere(z_t))
    assert torch.equal(net.denoise_fn.x, torch.cat([condition.z_lr, z_t], 1))
    assert net.denoise_fn.level.shape == (2, 1)
    assert net.denoise_fn.level[0].item() == pytest.approx(math.sqrt(1 - 1e-6), abs=1e-7)
    assert net.denoise_fn.level[1].item() == pytest.approx(0.0066227, rel=1e-5)


@pytest.mark.parametrize("t", [1, 1000, 2000])
def test_the_estimate_is_derived_from_eps_and_clipped(t):
    net, lr = recorded(), photo(4, 4)
    condition, z_t = net.encode(lr), torch.randn(1, 3, 32, 32)
    z_0 = net.predict(z_t, t, condition, everywhere(z_t))
    raw = predict_z0("eps", torch.full_like(z_t, 0.3), z_t, net.schedule.signal(t),
                     net.schedule.sigma(t))  # fmt: skip
    assert raw.abs().max() > 1
    assert torch.equal(z_0, raw.clamp(-1, 1))
    assert z_0.dtype == torch.float32


@pytest.mark.parametrize("scale", range(1, 17))
def test_an_lr_side_of_one_stride_fills_whole_cells_at_any_scale(scale):
    with torch.device("meta"):
        net = SR3(SR3Config(scale=scale, inner_channel=32))
    assert net.geometry.stride * scale % 16 == 0
    assert all(side * scale % 16 for side in range(1, net.geometry.stride))


def test_the_smallest_picture_of_an_odd_scale_runs_through():
    net = SR3(SR3Config(scale=3, inner_channel=32, channel_mults=(1, 1, 1), attn_levels=())).eval()
    with torch.no_grad():
        condition = net.encode(photo(net.geometry.stride, net.geometry.stride))
        z = torch.randn_like(condition.z_lr)
        assert net.predict(z, 7, condition, everywhere(z)).shape == z.shape


def small_unet(**options):
    torch.manual_seed(0)
    settings = {"inner_channel": 16, "channel_mults": (1, 2), "res_blocks": 1, "attn_levels": ()}
    return SR3UNet(**{**settings, "norm_groups": 8, **options}).eval()


@torch.no_grad()
def test_an_unshuffled_network_is_the_published_one_on_unshuffled_pixels():
    ours, published = small_unet(unshuffle=2), small_unet(in_channel=24, out_channel=12)
    published.load_state_dict(ours.state_dict())
    x, level = torch.randn(2, 6, 16, 24), torch.rand(2, 1)
    on_cells = published(F.pixel_unshuffle(x, 2), level)
    assert torch.equal(ours(x, level), F.pixel_shuffle(on_cells, 2))


@torch.no_grad()
def test_encoder_features_join_after_the_stem():
    net = small_unet(unshuffle=2, feature_channels=5)
    x, level = torch.randn(1, 6, 16, 16), torch.rand(1, 1)
    features = net.project(torch.randn(1, 5, 8, 8))
    assert features.shape == (1, 16, 8, 8)
    shown = net(x, level, features)
    stem = net.downs[0]
    net.downs[0] = nn.Conv2d(24, 16, 3, padding=1)
    net.downs[0].load_state_dict(stem.state_dict())
    net.downs[0].register_forward_hook(lambda module, given, out: out + features)
    assert torch.equal(net(x, level), shown)
    assert not torch.allclose(net(x, level, -features), shown, atol=1e-3)


@torch.no_grad()
def test_channel_norm_serves_every_norm_and_any_width():
    net = small_unet(inner_channel=12, norm="channel", norm_groups=32, attn_levels=(1,))
    assert not any(isinstance(module, nn.GroupNorm) for module in net.modules())
    assert net(torch.randn(1, 6, 8, 8), torch.rand(1, 1)).isfinite().all()


@torch.no_grad()
def test_channel_norm_looks_at_one_pixel_only():
    norm, x = nets.ChannelNorm(6), torch.randn(1, 6, 4, 4)
    whole = norm(x)
    assert torch.allclose(whole[..., 1:2, 2:3], norm(x[..., 1:2, 2:3]), atol=1e-7)
    assert torch.allclose(whole.mean(1), torch.zeros(1, 4, 4), atol=1e-6)
    assert torch.allclose(whole.var(1, correction=0), torch.ones(1, 4, 4), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("scale", [4, 8])
def test_rrdb_enlarges_and_lists_every_block_then_the_trunk(scale):
    torch.manual_seed(0)
    net = RRDBNet(num_feat=8, num_block=3, growth=4, scale=scale).eval()
    assert ("upconv3.weight" in net.state_dict()) == (scale == 8)
    lr = photo(3, 5) * 2 - 1
    out, features = net(lr)
    assert out.shape == (1, 3, 3 * scale, 5 * scale)
    assert -1 <= out.min() <= out.max() <= 1
    first = net.conv_first((lr + 1) / 2)
    assert len(features) == 4
    assert torch.equal(features[0], net.RRDB_trunk[0](first))
    assert torch.equal(features[2], net.RRDB_trunk[2](features[1]))
    assert torch.equal(features[3], first + net.trunk_conv(features[2]))


def test_rrdb_refuses_other_scales():
    with pytest.raises(ValueError, match="4 or 8, not 2"):
        RRDBNet(num_feat=8, num_block=1, growth=4, scale=2)


def wrong_norm_eps(patch):
    patch.setattr(nets.nn, "GroupNorm", lambda groups, channels: GROUP_NORM(groups, channels, 1e-6))


def swapped_sine_and_cosine(patch):
    encode = nets.NoiseLevelEncoding.forward
    patch.setattr(
        nets.NoiseLevelEncoding, "forward", lambda self, x: encode(self, x).roll(self.dim // 2, -1)
    )


def level_off_by_a_thousandth(patch):
    encode = nets.NoiseLevelEncoding.forward
    patch.setattr(nets.NoiseLevelEncoding, "forward", lambda self, x: encode(self, x * 1.001))


def swapped_bicubic_and_state(patch):
    run = SR3UNet.forward
    patch.setattr(
        SR3UNet, "forward", lambda self, x, level, f=None: run(self, x.roll(3, 1), level, f)
    )


def attention_scale_off_by_root_two(patch):
    patch.setattr(nets, "math", type("M", (), {"log": math.log, "sqrt": lambda x: ROOT(2 * x)}))


def level_of_the_step_before(patch):
    levels = NoiseSchedule.levels
    patch.setattr(NoiseSchedule, "levels", lambda self, t: levels(self, t - 1))


def estimate_not_clipped(patch):
    patch.setattr("yoda_cli.models.backbone.clip_to", lambda z, clip: z)


GROUP_NORM, ROOT = nn.GroupNorm, math.sqrt
ANY_FILE = ["sr3_unet_a_32x32", "sr3_unet_b_32x48_nonsquare", "sr3_diffusion_linear2000"]
NETWORK_MISTAKES = [
    wrong_norm_eps,
    swapped_sine_and_cosine,
    level_off_by_a_thousandth,
    swapped_bicubic_and_state,
    attention_scale_off_by_root_two,
]
STEP_MISTAKES = [level_of_the_step_before, estimate_not_clipped]


@pytest.mark.parametrize(
    ("mistake", "name"),
    [(mistake, name) for mistake in NETWORK_MISTAKES for name in ANY_FILE]
    + [(mistake, ANY_FILE[-1]) for mistake in STEP_MISTAKES],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_the_reference_vectors_notice(mistake, name, monkeypatch):
    vectors = golden.load_golden(GOLDENS / f"{name}.safetensors")
    assert golden.compare(vectors, MANIFEST[name]["out"]) == []
    mistake(monkeypatch)
    assert golden.compare(vectors, MANIFEST[name]["out"]) != []
