"""AGF of a ResNet: mistakes that its reference vector notices, odd pictures, the cheap variant."""

import json
from pathlib import Path

import golden
import pytest
import torch
from fakes import photo

from yoda_cli.attention import agf, resnet
from yoda_cli.errors import WeightsError
from yoda_cli.weights.structures import structures

GOLDENS = Path(__file__).parents[1] / "data" / "golden"
MANIFEST = json.loads((GOLDENS / "MANIFEST.json").read_text())


def small(seed=0):
    """A bottleneck network of one block a layer with random weights."""
    torch.manual_seed(seed)
    state = {"conv1.weight": torch.randn(8, 3, 7, 7) * 0.1}

    def norm(name, width):
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(width)
        state[f"{name}.bias"] = 0.1 * torch.randn(width)
        state[f"{name}.running_mean"] = 0.1 * torch.randn(width)
        state[f"{name}.running_var"] = 0.5 + torch.rand(width)

    norm("bn1", 8)
    inside = 8
    for layer, width in enumerate((4, 6, 8, 10), 1):
        name = f"layer{layer}.0"
        for index, (out, into, side) in enumerate(
            [(width, inside, 1), (width, width, 3), (4 * width, width, 1)], 1
        ):
            weight = torch.randn(out, into, side, side) / (into * side * side) ** 0.5
            state[f"{name}.conv{index}.weight"] = weight
            norm(f"{name}.bn{index}", out)
        state[f"{name}.downsample.0.weight"] = torch.randn(4 * width, inside, 1, 1) / inside**0.5
        norm(f"{name}.downsample.1", 4 * width)
        inside = 4 * width
    return state


def test_targets_in_one_batch_are_those_one_by_one():
    state = small()
    trace = agf.forward(state, torch.randn(1, 3, 64, 96))
    targets = resnet.strongest(trace)
    together = agf.relevance_maps(state, trace, targets)
    assert together.shape == (6, 1, 64, 96)
    for i, target in enumerate(targets):
        alone = agf.relevance_maps(state, trace, target[None])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-4)


def test_heads_are_the_largest_features_in_order():
    trace = agf.forward(small(), torch.randn(1, 3, 64, 64))
    values = trace.features[0, resnet.strongest(trace)]
    assert torch.equal(values, trace.features[0].topk(6).values)


@pytest.mark.parametrize("cheap", [True, False], ids=["cheap", "agf"])
@pytest.mark.parametrize("size", [(1, 1), (7, 33), (32, 32), (5, 300)])
def test_maps_have_the_pictures_size_and_lie_between_0_and_1(size, cheap):
    maps = resnet.head_maps(small(), photo(*size), cheap=cheap)
    assert maps.shape == (1, 6, *size)
    assert maps.isfinite().all()
    assert 0 <= maps.min() <= maps.max() <= 1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_picture_gives_finite_maps(value):
    maps = resnet.head_maps(small(), torch.full((1, 3, 40, 40), value), cheap=False)
    assert maps.isfinite().all()


def test_dead_branches_give_finite_maps():
    """All relevance of a block may run through its shortcut."""
    state = small()
    state["layer4.0.bn3.weight"] = torch.zeros(40)
    state["layer4.0.bn3.bias"] = torch.zeros(40)
    maps = resnet.head_maps(state, photo(64, 64), cheap=False)
    assert maps.isfinite().all()
    assert maps.amax() == 1


def test_large_pictures_are_seen_in_windows(monkeypatch):
    state, lr = small(), photo(64, 160)
    monkeypatch.setattr(resnet, "MAX_PIXELS", 64 * 160 - 1)
    monkeypatch.setattr(resnet, "WINDOW", 64)
    monkeypatch.setattr(resnet, "STEP", 48)
    assert resnet.is_windowed(64, 160)
    assert not resnet.is_windowed(64, 159)
    maps = resnet.head_maps(state, lr, cheap=False)
    assert maps.shape == (1, 6, 64, 160)
    assert maps.isfinite().all()
    assert maps.amax() == 1


def test_the_published_keys_are_a_network_it_runs(tmp_path):
    shapes = structures()["dino_resnet50"]
    state = {key: torch.ones(()).expand(shape) * 0.01 for key, shape in shapes.items()}
    torch.save(state, tmp_path / "a.pth")
    maps = resnet.load(tmp_path / "a.pth", device=torch.device("cpu"), cheap=True)(photo(20, 30))
    assert maps.shape == (1, 6, 20, 30)
    del state["conv1.weight"]
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match=r"no ResNet-50: it lacks conv1\.weight"):
        resnet.load(tmp_path / "b.pth", device=torch.device("cpu"), cheap=True)


def no_residual(patch):
    full = agf.convolution

    def only_c(x, weight, relevance, gradient, stride):
        _, before = full(x, weight, relevance, gradient, stride)
        return agf.flat(x, weight, relevance, stride, 1), before

    patch.setattr(agf, "convolution", only_c)


def swapped_supports(patch):
    factorize = agf.factorize
    patch.setattr(agf, "factorize", lambda values, p, n: factorize(values, n, p))


def softer_steps(patch):
    patch.setattr(agf, "SHARPNESS", 5.0)


def another_norm_eps(patch):
    patch.setattr(agf, "BN_EPS", 1e-3)


def gradient_through_relu_unmasked(patch):
    through = agf.through_relu
    patch.setattr(agf, "through_relu", lambda x, r, g: (through(x, r, g)[0], g))


@pytest.mark.parametrize(
    "mistake",
    [no_residual, swapped_supports, softer_steps, another_norm_eps, gradient_through_relu_unmasked],
)
def test_the_reference_vector_notices(mistake, monkeypatch):
    vectors = golden.load_golden(GOLDENS / "agf_resnet_a.safetensors")
    mistake(monkeypatch)
    assert golden.compare(vectors, MANIFEST["agf_resnet_a"]["out"]) != []
