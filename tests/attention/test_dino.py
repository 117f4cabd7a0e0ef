"""DINO's transformers as attention: reference keys, position grid, windows, and odd pictures."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fakes import photo

from yoda_cli.attention import dino
from yoda_cli.attention.heads import (
    AVG,
    MAX,
    MEAN,
    STD,
    aggregate,
    check_heads,
    imagenet_normalised,
)
from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.tiling.overlap import blend, sliding_windows
from yoda_cli.weights.structures import structures

CPU = torch.device("cpu")


def small(patch=8, **options):
    torch.manual_seed(0)
    settings = {"dim": 24, "depth": 2, "heads": 6, "size": 32, **options}
    net = dino.DinoAttention(patch=patch, **settings).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return net


@pytest.mark.parametrize(("patch", "name"), [(8, "dino_vit_small8"), (16, "dino_vit_small16")])
def test_the_keys_are_the_references(patch, name):
    with torch.device("meta"):
        state = dino.DinoAttention(patch=patch).net.state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == dict(structures()[name])


def test_timm_and_reference_key_lists_agree():
    folder = Path(__file__).parents[1] / "data" / "golden" / "keys"
    path = folder / "timm_vit_small_patch8_224_dino.json"
    if not path.exists():
        pytest.skip("no timm key list")
    rows = {key: tuple(shape) for key, shape, _ in json.loads(path.read_text())["keys"]}
    assert rows == dict(structures()["dino_vit_small8"])


def test_a_file_with_reference_keys_loads_and_a_wrong_one_does_not(tmp_path):
    shapes = structures()["dino_vit_small16"]
    torch.manual_seed(0)
    state = {key: torch.randn(shape) * 0.05 for key, shape in shapes.items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    maps = dino.load(tmp_path / "a.pth", patch=16, device=CPU)(photo(40, 50))
    assert maps.shape == (1, 6, 40, 50)
    with pytest.raises(WeightsError, match="no DINO ViT with patch 8"):
        dino.load(tmp_path / "a.pth", patch=8, device=CPU)
    del state["norm.bias"]
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match=r"norm\.bias"):
        dino.load(tmp_path / "b.pth", patch=16, device=CPU)


def test_the_position_grid_is_kept_only_at_its_own_size():
    net = small()
    learned = net.net.pos_embed
    assert torch.equal(net.position_embedding(4, 4), learned)
    assert net.position_embedding(2, 8).shape == learned.shape  # as many tokens, another shape
    assert not torch.allclose(net.position_embedding(2, 8), learned)
    grid = learned[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    by_size = F.interpolate(grid, (5, 6), mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
    ours = net.position_embedding(5, 6)[:, 1:]
    assert (ours - by_size).abs().max() > 0.005  # the scale factor drives the grid


@torch.no_grad()
def test_rows_are_the_class_tokens_and_are_not_renormalised():
    net = small()
    x = torch.randn(1, 3, 24, 40)
    tokens = net.tokens(x)
    whole = net.last_attention(tokens, whole=True)
    assert whole.shape == (1, 6, 16, 16)
    assert torch.allclose(whole.sum(-1), torch.ones(1, 6, 16), atol=1e-5)
    maps = net(x)
    assert torch.allclose(maps.flatten(2), whole[:, :, 0, 1:], atol=1e-7)
    assert (maps.sum((2, 3)) < 1).all()


def test_pictures_are_normalised_as_in_training():
    x = imagenet_normalised(torch.tensor(MEAN).view(1, 3, 1, 1).expand(1, 3, 2, 2))
    assert x.abs().max() < 1e-6
    white = imagenet_normalised(torch.ones(1, 3, 1, 1)).flatten()
    assert white.tolist() == pytest.approx([(1 - m) / s for m, s in zip(MEAN, STD, strict=True)])


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (8, 8), (9, 8), (5, 400), (400, 5)])
def test_maps_have_the_pictures_size_and_lie_between_0_and_1(size):
    maps = dino.head_maps(small(), photo(*size))
    assert maps.shape == (1, 6, *size)
    assert maps.isfinite().all()
    assert 0 <= maps.min() <= maps.max() <= 1


def test_every_head_uses_the_whole_range():
    maps = dino.head_maps(small(), photo(40, 56))
    assert torch.equal(maps.amin((2, 3)), torch.zeros(1, 6))
    assert torch.equal(maps.amax((2, 3)), torch.ones(1, 6))


def test_large_pictures_are_seen_in_windows_and_look_alike(monkeypatch):
    net = small()
    lr = photo(96, 128)
    monkeypatch.setattr(dino, "WINDOW_TOKENS", 16)
    whole = dino.head_maps(net, lr)
    monkeypatch.setattr(dino, "MAX_TOKENS", 12 * 16 - 1)
    assert dino.is_windowed(96, 128, 8)
    assert not dino.is_windowed(88, 128, 8)
    assert torch.allclose(dino.head_maps(net, lr), whole, atol=1e-5)  # one window covers it
    monkeypatch.setattr(dino, "WINDOW_TOKENS", 6)
    monkeypatch.setattr(dino, "STEP_TOKENS", 4)
    parts = dino.head_maps(net, lr)
    assert parts.shape == whole.shape
    assert not torch.equal(parts, whole)
    assert parts.isfinite().all()


@pytest.mark.parametrize(("height", "width"), [(3, 3), (10, 10), (11, 23), (37, 5)])
def test_windows_cover_the_grid_and_blend_to_the_truth(height, width):
    truth = torch.randn(1, 2, height, width)
    windows = sliding_windows(height, width, 10, 7)
    assert all(window.height <= 10 and window.width <= 10 for window in windows)
    joined = blend(lambda window: window.cut(truth), windows, torch.zeros_like(truth))
    assert torch.allclose(joined, truth, atol=1e-6)


def test_heads_are_aggregated():
    maps = torch.rand(1, 6, 4, 5)
    assert aggregate(maps, MAX).shape == (1, 1, 4, 5)
    middle = aggregate(maps, "2")[0, 0]
    scaled = (maps[0, 2] - maps[0, 2].min()) / (maps[0, 2].max() - maps[0, 2].min())
    assert torch.allclose(middle, scaled)
    mean = maps.mean(1, keepdim=True)
    assert torch.allclose(aggregate(maps, AVG), (mean - mean.min()) / (mean.max() - mean.min()))
    assert aggregate(torch.full((1, 6, 3, 3), 0.2), MAX).unique().tolist() == [0.5]


@pytest.mark.parametrize("which", ["6", "9", "-1", "all", "", "1.5"])
def test_other_heads_are_refused(which):
    with pytest.raises(UsageError, match="give 0 … 5, avg or max"):
        check_heads(which)
