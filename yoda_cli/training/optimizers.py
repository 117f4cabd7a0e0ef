"""AdamW, and Muon beside it for the convolutions of a trunk.

Muon (Jordan et al., 2024) steps by the nearest semi-orthogonal matrix to a weight's averaged
gradient, so every direction of a layer learns at the same pace. Six minutes of the compact encoder
from its first weights on one CPU core, in dB over bicubic on held-out pictures: 1.72 at a rate of
0.01; AdamW 1.36 at 5e-4, and 1.53 at 1e-3 on crops picked by bicubic's error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yoda_cli.config import TrainOptions
from yoda_cli.errors import UsageError


@dataclass(frozen=True)
class Optimizers:
    """Both optimisers of a run; ``matrices`` are kernels and Muon's views of them."""

    options: TrainOptions
    adam: torch.optim.AdamW
    muon: torch.optim.Optimizer | None
    matrices: Sequence[tuple[nn.Parameter, nn.Parameter]]

    def step(self, share: float) -> None:
        """One step at ``share`` of the full rates, by the gradients that the weights hold."""
        for group in self.adam.param_groups:
            group["lr"] = share * self.options.rate
        self.adam.step()
        if self.muon is None:
            return
        for kernel, matrix in self.matrices:
            matrix.grad = None if kernel.grad is None else as_matrix(kernel, kernel.grad)
        for group in self.muon.param_groups:
            group["lr"] = share * self.options.muon_rate
        self.muon.step()

    def state_dict(self) -> dict[str, Any]:
        return {
            "adam": self.adam.state_dict(),
            "muon": self.muon.state_dict() if self.muon else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        if self.muon is not None:
            self.muon.load_state_dict(state["muon"])


def make_optimizers(net: nn.Module, options: TrainOptions) -> Optimizers:
    """For the weights of ``net`` that are trained. It must be on its device already."""
    named = [p for name in options.muon for p in net.get_submodule(name).parameters()]
    kernels = [p for p in named if p.ndim == 4 and p.requires_grad]
    matrices = [(p, nn.Parameter(as_matrix(p, p.detach()))) for p in kernels]
    apart = {id(p) for p in kernels}
    rest = [p for p in net.parameters() if p.requires_grad and id(p) not in apart]
    adam = torch.optim.AdamW(rest, lr=options.rate, weight_decay=options.weight_decay)
    return Optimizers(options, adam, _muon([m for _, m in matrices], options.muon_rate), matrices)


def as_matrix(kernel: Tensor, values: Tensor) -> Tensor:
    """``values`` of a kernel (O, I, h, w) as a matrix (O, I·h·w), in the order of its memory.

    Of the kernel's own values it is a view, whichever memory format they have.
    """
    if kernel.is_contiguous():
        return values.reshape(len(values), -1)
    return values.permute(0, 2, 3, 1).reshape(len(values), -1)


def _muon(matrices: list[nn.Parameter], rate: float) -> torch.optim.Optimizer | None:
    if not matrices:
        return None
    try:
        from torch.optim import Muon
    except ImportError:
        raise UsageError("a recipe with muon needs torch 2.9 or newer") from None
    return Muon(matrices, lr=rate, weight_decay=0.0)
