"""What each step of a batch of chains gained, as a run with ``--adaptive`` would be told it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from yoda_cli.diffusion.adaptive import Gains
from yoda_cli.evaluation.metrics.gain import true_sums


@dataclass
class TrueGains:
    """Gains measured against the truth ``hr`` (B, 3, H, W) in [0, 1], after each estimate.

    ``decode`` makes pictures of estimates. ``now`` (B, 2) are those of the last step: zero where a
    run would not look, before the second half of a chain of T = ``num_steps`` and after its first
    estimate there.
    """

    hr: Tensor
    decode: Callable[[Tensor], Tensor]
    num_steps: int
    now: Tensor | None = None
    before: list[Gains] = field(default_factory=list)

    @torch.no_grad()
    def see(self, z_0: Tensor, s: int) -> None:
        """The estimate ``z_0`` (B, C, H, W) of a step that leads to time s."""
        self.now = None
        if not 0 < 2 * s <= self.num_steps:
            return
        pictures = self.decode(z_0).float().clamp(0, 1)
        pairs = zip(
            pictures.tensor_split(len(pictures)), self.hr.tensor_split(len(pictures)), strict=True
        )
        before, self.before = self.before, [true_sums(sr, hr) for sr, hr in pairs]
        if before:
            gained = [Gains.between(*sums) for sums in zip(before, self.before, strict=True)]
            rows = [(gains.fidelity, gains.realism) for gains in gained]
            self.now = torch.tensor(rows, device=z_0.device)
