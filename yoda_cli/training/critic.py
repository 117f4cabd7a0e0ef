"""A critic for the second stage: which of two details of one scene is the photograph's?

It compares within the pair (relativistic pairing with R1 and R2: Huang et al., arXiv:2501.05441;
Jolicoeur-Martineau, arXiv:1807.00734), given the base, and sees the high band alone: what the LR
picture tells already is no matter of taste. Its pull is a fixed share of the other terms' own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 24  # channels of the first layer
SHIFT = 4  # pixels: no phase of the denoiser's cells is told from another
GAIN = 8.0  # detail is a fraction of the range of a picture
SLOPE = 0.2
RATE, BETAS = 2e-4, (0.0, 0.99)
STEPS = 2  # of the critic for one of the network
LAZY = 4  # the penalty is taken at every 4th step
FIRST_PENALTY, PATIENCE = 0.05, 200  # its weight is judged anew after so many steps
SURE, UNSURE = 0.9, 0.65  # share of pairs told right: a stronger penalty above, a weaker below
ALONE, RAMP = 200, 1000  # steps before the critic is heard, and until it is heard in full
DITHER = 1 / 255  # pictures come in 8 bits, samples do not
LUMA = (0.299, 0.587, 0.114)


class Critic(nn.Module):
    """One number for every 8×8 pixels, from a field of 38: larger where detail looks real."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        sizes = (20, WIDTH, 2 * WIDTH, 4 * WIDTH, 4 * WIDTH)
        strides = (1, 2, 2, 1)
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        for before, after, stride in zip(sizes, sizes[1:], strides, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.LeakyReLU(SLOPE)]
        self.body = nn.Sequential(*layers, nn.Conv2d(sizes[-1], 1, 1))

    def forward(self, image: Tensor, base: Tensor) -> Tensor:
        """(B, 1, h, w) of ``image`` against ``base``, both (B, 3, H, W) in [0, 1]."""
        luma = (base * base.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        detail = high_band(image - base, self.scale)
        seen = [GAIN * detail, luma - 0.5, GAIN * high_band(luma, self.scale)]
        out: Tensor = self.body(torch.cat(seen, 1).contiguous(memory_format=torch.channels_last))
        return out


def high_band(x: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) without what survives a reduction by ``scale``."""
    height, width = x.shape[-2:]
    low = F.interpolate(x, (height // scale, width // scale), mode="bicubic", antialias=True)
    return x - F.interpolate(low, (height, width), mode="bicubic")


@dataclass
class Pair:
    """Samples and truths (B, 3, H, W) of the same scenes, and their bases."""

    ours: Tensor
    theirs: Tensor
    base: Tensor


@dataclass
class Adversary:
    """A critic in training. ``share`` is the norm of its gradient over that of all other terms."""

    critic: Critic
    share: float
    generator: torch.Generator
    optimizer: torch.optim.Optimizer = field(init=False)
    pairs: list[Pair] = field(default_factory=list)
    steps: int = 0
    penalty: float = FIRST_PENALTY
    accuracy: float = 0.5  # running
    weight: float = 0.0  # running

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=RATE, betas=BETAS)

    def term(self, z_0: Tensor, others: Tensor, pair: Pair) -> Tensor:
        """The network's part of the game; ``others`` is the sum of its other terms, of ``z_0``."""
        self.pairs.append(Pair(pair.ours.detach(), pair.theirs, pair.base))
        self.critic.requires_grad_(False)
        lead = self.lead(pair)
        self.critic.requires_grad_(True)
        loss = F.softplus(lead).mean()
        ours, theirs = (torch.autograd.grad(x, z_0, retain_graph=True)[0] for x in (loss, others))
        ratio = float(theirs.norm() / ours.norm().clamp(min=1e-12))
        self.weight = 0.9 * self.weight + 0.1 * ratio if self.weight else ratio
        heard = min(1.0, max(0.0, (self.steps / STEPS - ALONE) / RAMP))
        return self.share * heard * self.weight * loss

    def lead(self, pair: Pair) -> Tensor:
        """By how much the truth is liked better than the sample, at each place."""
        top, left = torch.randint(SHIFT, (2,), generator=self.generator).tolist()
        height, width = ((n - SHIFT) // 8 * 8 for n in pair.ours.shape[-2:])
        window = (..., slice(top, top + height), slice(left, left + width))
        base = pair.base[window]
        theirs, ours = (self.critic(dithered(x[window]), base) for x in (pair.theirs, pair.ours))
        out: Tensor = theirs - ours
        return out

    def learn(self) -> dict[str, float]:
        """The critic's own steps, on the pairs that came up since; how it stands."""
        for index in range(STEPS):
            self._step(self.pairs[index % len(self.pairs)])
        self.pairs.clear()
        return {"accuracy": self.accuracy, "weight": self.weight, "penalty": self.penalty}

    def _step(self, pair: Pair) -> None:
        self.steps += 1
        if self.steps % LAZY:
            lead = self.lead(pair)
            loss = F.softplus(-lead).mean()
        else:
            ours = pair.ours.clone().requires_grad_(True)
            theirs = pair.theirs.clone().requires_grad_(True)
            lead = self.lead(Pair(ours, theirs, pair.base))
            slopes = torch.autograd.grad(lead.sum(), (ours, theirs), create_graph=True)
            size = sum(x.square().sum() for x in slopes) / lead.numel()
            loss = F.softplus(-lead).mean() + LAZY * self.penalty / 2 * size
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        right = float((lead.mean((1, 2, 3)) > 0).float().mean())
        self.accuracy = 0.99 * self.accuracy + 0.01 * right
        if self.steps % PATIENCE == 0 and not UNSURE <= self.accuracy <= SURE:
            self.penalty *= 2.0 if self.accuracy > SURE else 0.5

    def state_dict(self) -> dict[str, Any]:
        counters = [self.steps, self.penalty, self.accuracy, self.weight]
        return {
            "critic": self.critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "counters": counters,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        steps, self.penalty, self.accuracy, self.weight = state["counters"]
        self.steps = int(steps)


def dithered(image: Tensor) -> Tensor:
    """With the rounding of 8 bits hidden; the network may not be told by it."""
    return image + DITHER * (torch.rand_like(image) - 0.5)


def make_adversary(
    scale: int, share: float, device: torch.device, generator: torch.Generator
) -> Adversary | None:
    """A fresh critic for networks of this scale; none where it has no share."""
    if not share:
        return None
    critic = Critic(scale).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Adversary(critic, share, generator)
