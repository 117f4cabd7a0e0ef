"""The feature term: what it calls alike, and the file that its network comes from."""

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from yoda_cli.training.feature_loss import STAGES, Features, feature_score, load_features


def random_weights():
    """(weight, bias) of every convolution, in the file's order."""
    generator = torch.Generator().manual_seed(0)

    def layer(out, inner, side):
        weight = torch.randn(out, inner, side, side, generator=generator)
        return weight / (inner * side * side) ** 0.5, torch.randn(out, generator=generator) / 10

    yield layer(64, 3, 7)
    inner = 64
    for stage, blocks in enumerate(STAGES):
        narrow = 32 * 2**stage
        for block in range(blocks):
            if block == 0:
                yield layer(4 * narrow, inner, 1)
            yield layer(narrow, inner if block == 0 else 4 * narrow, 1)
            yield layer(narrow, narrow, 3)
            yield layer(4 * narrow, narrow, 1)
        inner = 4 * narrow


@pytest.fixture(scope="module")
def net():
    return Features(random_weights())


def score(net, first, second, truth, spread=0.0):
    return float(feature_score(net, first, second, truth, spread, torch.Generator().manual_seed(1)))


def test_maps_are_of_unit_vectors_at_a_half_a_quarter_and_an_eighth(net):
    maps = net(torch.rand(2, 3, 64, 48))
    assert [tuple(m.shape) for m in maps] == [
        (2, 64, 32, 24), (2, 128, 16, 12), (2, 256, 8, 6)
    ]  # fmt: skip
    for one in maps:
        assert torch.allclose(one.norm(dim=1), torch.ones(()), atol=1e-3)


def test_the_truth_scores_least_and_damage_more_the_worse_it_is(net):
    truth = torch.rand(1, 3, 64, 64)
    blurred = [F.avg_pool2d(truth, n, 1, n // 2) for n in (3, 5)]
    values = [score(net, x, x, truth) for x in (truth, *blurred)]
    assert values[0] < 2e-3
    assert values[0] < values[1] < values[2]


def test_samples_that_differ_are_forgiven_as_the_spread_says(net):
    truth, first, second = torch.rand(3, 1, 3, 64, 64)
    apart = score(net, first, second, truth) - score(net, first, second, truth, 1.0)
    half = score(net, first, second, truth) - score(net, first, second, truth, 0.5)
    assert apart > 0.01
    assert half == pytest.approx(apart / 2, rel=1e-4)


def test_a_sample_learns_from_it_and_the_network_does_not(net):
    truth, first = torch.rand(2, 1, 3, 64, 64)
    first.requires_grad_(True)
    feature_score(net, first, first, truth, 0.0, torch.Generator()).backward()
    assert float(first.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in net.parameters())


def test_the_file_is_read_in_its_order(net, tmp_path):
    """Weights of a file are those of its convolutions, as they follow each other."""
    nodes, tensors = [], []
    for index, (weight, bias) in enumerate(random_weights()):
        names = [f"w{index}", f"b{index}"]
        tensors += [
            numpy_helper.from_array(x.numpy(), n)
            for x, n in zip((weight, bias), names, strict=True)
        ]
        nodes.append(helper.make_node("Conv", [f"x{index}", *names], [f"x{index + 1}"]))
    ends = [
        helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, None) for i in (0, len(nodes))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    image = torch.rand(1, 3, 32, 32)
    for ours, theirs in zip(load_features(tmp_path / "net.onnx")(image), net(image), strict=True):
        assert torch.equal(ours, theirs)
