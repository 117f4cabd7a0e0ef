"""Muon beside AdamW: which weights each steps, and that Muon's views are the weights."""

import pytest
import torch
from torch import nn

from yoda_cli.config import TrainOptions
from yoda_cli.errors import UsageError
from yoda_cli.training.optimizers import as_matrix, make_optimizers

MUON = TrainOptions(muon=("trunk",), muon_rate=0.1, rate=0.01, weight_decay=0.0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.trunk = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1))


def net_of(memory_format):
    torch.manual_seed(0)
    return Net().to(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_steps_kernels_by_orthogonal_matrices(memory_format):
    net = net_of(memory_format)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizers = make_optimizers(net, MUON)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    optimizers.step(0.5)
    for name, p in net.named_parameters():
        moved = (p.detach() - before[name]).flatten(1) if p.ndim == 4 else None
        if name in ("trunk.0.weight", "trunk.1.weight"):
            values = torch.linalg.svdvals(moved) / (0.5 * 0.1)
            assert 0.5 < values.min() < values.max() < 1.3, name
        else:  # AdamW's first step is as long as its rate everywhere
            assert torch.allclose((p.detach() - before[name]).abs(), torch.tensor(0.005), rtol=0.01)


def test_muon_follows_the_gradient_in_either_memory_format():
    stepped = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        net = net_of(memory_format)
        optimizers = make_optimizers(net, MUON)
        torch.manual_seed(1)
        x, y = torch.randn(4, 3, 8, 8), torch.randn(4, 4, 4, 4)
        losses = []
        for _ in range(20):
            loss = (net.trunk(net.first(x)) - y).square().mean()
            net.zero_grad()
            loss.backward()
            optimizers.step(1.0)
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.9 * losses[0]
        stepped.append(losses)
    assert stepped[0] == pytest.approx(stepped[1], rel=0.02)  # bf16 inside, in another order


def test_a_matrix_of_a_kernel_is_a_view_of_it():
    for memory_format in (torch.contiguous_format, torch.channels_last):
        kernel = torch.randn(6, 5, 3, 3).to(memory_format=memory_format)
        matrix = as_matrix(kernel, kernel)
        assert matrix.shape == (6, 45)
        matrix.zero_()
        assert not kernel.any()


def test_frozen_kernels_are_nobodys():
    net = net_of(torch.contiguous_format)
    net.trunk.requires_grad_(False)
    optimizers = make_optimizers(net, MUON)
    assert optimizers.muon is None
    assert not optimizers.matrices


def test_an_old_torch_is_told_what_it_lacks(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UsageError, match=r"needs torch 2\.9"):
        make_optimizers(net_of(torch.contiguous_format), MUON)
