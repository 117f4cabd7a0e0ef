"""What training minimises: the masked loss on states the sampler makes, the base, the attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.attention import LEARNED
from yoda_cli.config import TrainOptions
from yoda_cli.diffusion.adaptive import Course, Gains, LeapRule, times_of
from yoda_cli.diffusion.schedule import predict_z0, prediction_target
from yoda_cli.diffusion.steps import ddim_step
from yoda_cli.diffusion.timesteps import spaced_timesteps
from yoda_cli.diffusion.yoda import (
    AttentionMask,
    masked_loss,
    masked_sample,
    time_mask,
    training_state,
)
from yoda_cli.errors import UsageError
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.base import Condition
from yoda_cli.models.srdiff import SRDiff
from yoda_cli.training.data import Batch
from yoda_cli.training.energy_score import energy_score
from yoda_cli.training.texture_loss import texture_loss
from yoda_cli.training.true_gains import TrueGains

CONSTANT = "constant"  # A ≡ c with a random c: the whole crop starts late


def draw_transitions(
    options: TrainOptions, num_steps: int, peak: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One transition t → s per sample, (B,) each, of a random chain, whose mask is not empty.

    ``peak`` (B,) is T·(max A + l): the mask of t → s is empty where s + 1 exceeds it.
    """
    chosen: list[tuple[int, int]] = []
    for limit in peak.tolist():
        which = int(torch.randint(len(options.chains), (1,), generator=generator))
        chain = spaced_timesteps(num_steps, options.chains[which] or num_steps)
        first = next(i for i in range(len(chain) - 1) if chain[i + 1] + 1 <= limit)
        span = len(chain) - 1 - first
        index = first + int(torch.randint(span, (1,), generator=generator))
        chosen.append((chain[index], chain[index + 1]))
    t, s = zip(*chosen, strict=True)
    return torch.tensor(t), torch.tensor(s)


def draw_attention(
    options: TrainOptions, batch: Batch, learned: Tensor | None, generator: torch.Generator
) -> Tensor:
    """(B, 1, h, w): each sample's map from a source drawn by the recipe's weights."""
    size = batch.lr.shape[0]
    level = torch.rand(size, generator=generator).view(-1, 1, 1, 1).to(batch.lr)
    shape = (size, 1, *batch.lr.shape[-2:])
    maps = {"uniform": torch.ones(shape).to(batch.lr), CONSTANT: level.expand(shape), **batch.maps}
    if learned is not None:
        maps[LEARNED] = learned.detach()
    names = [name for name in options.attention if name in maps]
    weights = torch.tensor([float(options.attention[name]) for name in names])
    which = torch.multinomial(weights, size, replacement=True, generator=generator)
    stacked = torch.stack([maps[name] for name in names])
    return stacked[which.to(stacked.device), torch.arange(size, device=stacked.device)]


def losses(
    net: Backbone, batch: Batch, options: TrainOptions, generator: torch.Generator,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, Tensor]:  # fmt: skip
    """The terms of one step's loss, weighted; their sum is what is minimised."""
    with autocast():
        condition = encoded(net, batch, options)
    encoder = _encoder_losses(batch, condition, options)
    if options.states == "none":
        if not encoder:
            raise UsageError(
                'states = "none" trains an encoder, and this network has none of its own'
            )
        return encoder
    z_0 = net.to_z(batch.hr, condition)
    attention = draw_attention(options, batch, condition.attention, generator)
    low, high = options.lower_bound
    lower = low + (high - low) * float(torch.rand(1, generator=generator))
    task = Task(net, options, condition, batch.hr, z_0, attention, lower, generator, autocast)
    diffusion = task.sampled() if options.states == "sampled" else task.forward()
    return diffusion | encoder


def encoded(net: Backbone, batch: Batch, options: TrainOptions) -> Condition:
    """``net.encode``; damaged pictures are not restored: no stage trains on what that makes."""
    if isinstance(net, SRDiff) and net.is_compact:
        return net.encode_compact(batch.lr, batch.strength, restored=False)
    return net.encode(batch.lr, batch.strength)


@dataclass(frozen=True)
class Task:
    """A batch's truth, its residuals and how they are masked. ``attention`` is on the LR grid."""

    net: Backbone
    options: TrainOptions
    condition: Condition
    hr: Tensor
    z_0: Tensor
    attention: Tensor
    lower: float
    generator: torch.Generator
    autocast: Callable[[], AbstractContextManager[Any]]

    def on_grid(self) -> Tensor:
        """A on the diffusion grid; rolled in space for the arm that asks whether that matters."""
        attention = F.interpolate(self.attention, self.z_0.shape[-2:], mode="bilinear").clamp(0, 1)
        if self.options.masks == "shuffled":
            shifts = [
                int(torch.randint(n, (1,), generator=self.generator)) for n in self.z_0.shape[-2:]
            ]
            attention = attention.roll(shifts, (-2, -1))
        return attention

    def noise(self) -> Tensor:
        seed = int(torch.randint(2**62, (1,), generator=self.generator))
        on_device = torch.Generator(self.z_0.device).manual_seed(seed)  # never crosses the bus
        return torch.randn(self.z_0.shape, generator=on_device, device=self.z_0.device)

    def forward(self) -> dict[str, Tensor]:
        """One transition per sample, from a state that the forward process makes of the truth."""
        net, options, z_0 = self.net, self.options, self.z_0
        total = net.schedule.num_steps
        peak = total * (self.attention.amax((1, 2, 3)) + self.lower)
        drawn = draw_transitions(options, total, peak, self.generator)
        t, s = (x.to(z_0.device) for x in drawn)
        attention = self.on_grid()
        weight = torch.ones(len(t), 1, 1, 1, device=z_0.device)
        if options.masks == "weights":
            covered = time_mask(attention, self.lower, (s + 1).view(-1, 1, 1, 1), total)
            weight = covered.float().mean((1, 2, 3), keepdim=True)
            attention = torch.ones_like(attention)
        z_lr, noise = self.condition.z_lr, self.noise()
        z_t, mask = training_state(net.schedule, z_0, z_lr, attention, self.lower, t, s, noise)
        with self.autocast():
            output = net.denoise(z_t, t, self.condition, mask)
        signal, sigma = net.schedule.levels(t.view(-1, 1, 1, 1))
        target = prediction_target(net.prediction, z_t, z_0, signal, sigma)
        loss = masked_loss(weight * (output.float() - target).abs(), mask)
        if options.divide_by == "crop":
            loss = loss * mask.float().mean()
        return {"diffusion": loss}

    def sampled(self) -> dict[str, Tensor]:
        """Every step of two whole chains, from the states that this network made itself.

        The two differ by their noise, and each estimate is scored as a sample (``energy_score``):
        on states of its own the network sees what it has made up already and goes on with it.
        """
        net, chain, attention = self.net, self.chain(), self.on_grid()
        picked = self.picked(chain, attention)
        maps = {name: x.repeat(2, 1, 1, 1) for name, x in self.condition.maps.items()}
        condition = Condition(self.condition.z_lr.repeat(2, 1, 1, 1), maps)
        scores: list[dict[str, Tensor]] = []
        gains = self.gains(condition) if net.takes_gains else None

        def predict(z_t: Tensor, t: int, mask: Tensor) -> Tensor:
            if not mask.any():
                return torch.zeros_like(z_t)
            z_t = z_t.clone()  # for the backward pass; the step overwrites the state
            seen = replace(condition, gains=gains.now) if gains else condition
            place = chain.index(t)
            with torch.set_grad_enabled(place in picked):
                z_0 = self.estimate(z_t, t, seen, mask)
                if place in picked:
                    scores.append(self.scored(z_0, mask, condition))
            z_0 = z_0.detach()
            if gains:
                gains.see(torch.where(mask, z_0, condition.z_lr), chain[place + 1])
            return z_0

        noise = torch.cat([self.noise(), self.noise()])
        masked_sample(
            predict, ddim_step, net.schedule, chain,
            AttentionMask(attention.repeat(2, 1, 1, 1), self.lower, net.schedule.num_steps),
            condition.z_lr, lambda step: noise,
        )  # fmt: skip
        return {name: sum_of(scores, name) / len(picked) for name in scores[0]}

    def chain(self) -> list[int]:
        """[T, …, 0] of one of the lengths that are trained, with leaps by chance where it has any:
        as ``--adaptive`` would take them if every third step gained."""
        options, total = self.options, self.net.schedule.num_steps
        which = int(torch.randint(len(options.chains), (1,), generator=self.generator))
        chain = list(spaced_timesteps(total, options.chains[which] or total))
        if not options.adaptive:
            return chain

        def by_chance() -> Gains:
            gained = int(torch.randint(3, (1,), generator=self.generator)) == 0
            return Gains(0.0, float(gained))

        return times_of(Course(chain, LeapRule()), by_chance)

    def picked(self, chain: Sequence[int], attention: Tensor) -> set[int]:
        """The places in ``chain`` of the estimates that are trained on: all, or some of those whose
        mask is not empty."""
        places, wanted = range(len(chain) - 1), self.options.scored
        if not wanted:
            return set(places)
        peak = self.net.schedule.num_steps * (float(attention.max()) + self.lower)
        open_ones = [i for i in places if chain[i + 1] + 1 <= peak] or [places[-1]]
        order = torch.randperm(len(open_ones), generator=self.generator)
        return {open_ones[int(i)] for i in order[:wanted]}

    def gains(self, condition: Condition) -> TrueGains:
        """What the steps of the two chains gain."""
        plain = in_full(condition)
        return TrueGains(
            self.hr.repeat(2, 1, 1, 1), lambda z: self.net.decode(z, plain),
            self.net.schedule.num_steps,
        )  # fmt: skip

    def estimate(self, z_t: Tensor, t: int, condition: Condition, mask: Tensor) -> Tensor:
        """ẑ_0 in fp32."""
        net = self.net
        times = torch.full((len(z_t),), t, device=z_t.device)
        with self.autocast():
            output = net.denoise(z_t, times, condition, mask)
        signal, sigma = net.schedule.signal(t), net.schedule.sigma(t)
        return predict_z0(net.prediction, output.float(), z_t, signal, sigma)

    def scored(self, z_0: Tensor, mask: Tensor, condition: Condition) -> dict[str, Tensor]:
        """Two estimates of every crop, one after the other in the batch, against the truth."""
        options, net = self.options, self.net
        first, second = z_0.chunk(2)
        energy = energy_score(
            first, second, self.z_0, mask.chunk(2)[0], options.spread, self.generator
        )
        if not options.texture_weight:
            return {"energy": energy}
        seen = in_full(condition)
        ours, theirs = (
            net.decode(torch.where(mask, z, condition.z_lr), seen)
            for z in (z_0, self.z_0.repeat(2, 1, 1, 1))
        )
        texture = texture_loss(ours, theirs, net.geometry.scale, self.generator)
        return {"energy": energy, "texture": options.texture_weight * texture}


def in_full(condition: Condition) -> Condition:
    """``condition`` in fp32, without gradients."""
    plain = {name: x.detach().float() for name, x in condition.maps.items()}
    return Condition(condition.z_lr, plain)


def sum_of(scores: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    return torch.stack([score[name] for score in scores]).sum()


def _encoder_losses(batch: Batch, condition: Condition, options: TrainOptions) -> dict[str, Tensor]:
    """The regression base towards HR, the difficulty towards the base's own error."""
    if "base" not in condition.maps:
        return {}
    error = (condition.maps["base"].float() - batch.hr).abs()
    terms = {"base": options.base_weight * error.mean()}
    if "difficulty" in condition.maps:
        difficulty = condition.maps["difficulty"].float()
        local = F.avg_pool2d(
            error.detach().mean(1, keepdim=True), error.shape[-1] // difficulty.shape[-1]
        )
        # Scaled so that squares of about 0.03 do not drown.
        terms["attention"] = F.mse_loss(10 * difficulty, 10 * local)
    return terms
