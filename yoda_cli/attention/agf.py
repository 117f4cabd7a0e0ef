"""Attribution-guided factorization (AGF) of a ResNet: from which pixels its features come.

Relevance and the ordinary gradient are carried back layer by layer, for all
targets at once over one shared forward pass. The network is its table of tensors, of any depth and
width.
Source: Gur, Ali, Wolf 2021, "Visualization of Supervised and Self-Supervised Neural Networks via
Attribution Guided Factorization".

Shapes: inputs of layers are (1, C, h, w), relevance and gradients (K, C, h, w) for K targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad

State = Mapping[str, Tensor]

EPS = 1e-9  # keeps quotients of relevance finite
BN_EPS = 1e-5
SHARPNESS = 10.0  # of the sigmoid that stands for a step in the factorization


@dataclass(frozen=True)
class Block:
    """What one bottleneck saw on the way forward, by the name of the layer that read it."""

    name: str
    stride: int
    x: Tensor
    relu1: Tensor
    conv2: Tensor
    relu2: Tensor
    conv3: Tensor
    branch: Tensor
    shortcut: Tensor


@dataclass(frozen=True)
class Trace:
    """One forward pass: what every layer that needs it saw."""

    image: Tensor
    relu: Tensor
    pool: Tensor
    blocks: tuple[Block, ...]
    last: Tensor

    @property
    def features(self) -> Tensor:
        """The pooled features (1, F)."""
        return self.last.mean((2, 3))


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    """The layer ``name`` in evaluation mode."""
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], eps=BN_EPS)


def batch_norm_slope(state: State, name: str) -> Tensor:
    """What a gradient is multiplied with on its way back, (1, C, 1, 1)."""
    slope = state[f"{name}.weight"] / (state[f"{name}.running_var"] + BN_EPS).sqrt()
    return slope.view(1, -1, 1, 1)


def forward(state: State, image: Tensor) -> Trace:
    """Run the network on a normalised (1, 3, H, W) picture whose sides divide by 32."""
    relu = batch_norm(state, "bn1", F.conv2d(image, state["conv1.weight"], stride=2, padding=3))
    pool = F.relu(relu)
    x = F.max_pool2d(pool, 3, 2, 1)
    blocks = []
    for layer in range(1, 5):
        index = 0
        while f"layer{layer}.{index}.conv1.weight" in state:
            stride = 2 if index == 0 and layer > 1 else 1
            blocks.append(bottleneck(state, f"layer{layer}.{index}", stride, x))
            x = F.relu(blocks[-1].branch + blocks[-1].shortcut)
            index += 1
    return Trace(image, relu, pool, tuple(blocks), x)


def bottleneck(state: State, name: str, stride: int, x: Tensor) -> Block:
    """One residual block."""
    relu1 = batch_norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"]))
    conv2 = F.relu(relu1)
    weight = state[f"{name}.conv2.weight"]
    relu2 = batch_norm(state, f"{name}.bn2", F.conv2d(conv2, weight, stride=stride, padding=1))
    conv3 = F.relu(relu2)
    branch = batch_norm(state, f"{name}.bn3", F.conv2d(conv3, state[f"{name}.conv3.weight"]))
    shortcut = x
    if f"{name}.downsample.0.weight" in state:
        reduced = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
        shortcut = batch_norm(state, f"{name}.downsample.1", reduced)
    return Block(name, stride, x, relu1, conv2, relu2, conv3, branch, shortcut)


def conv2d_input(
    size: tuple[int, ...], weight: Tensor, s: Tensor, stride: int = 1, padding: int = 0
) -> Tensor:
    """The transposed convolution: what reaches inputs of ``size`` from outputs ``s``."""
    found: Tensor = grad.conv2d_input(size, weight, s, stride=stride, padding=padding)  # type: ignore[no-untyped-call]
    return found


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, shifted away from a zero denominator; 0 where b is 0."""
    shifted = b + EPS
    shifted = torch.where(shifted == 0, EPS, shifted)
    return torch.where(b != 0, a / shifted, 0)


def largest(x: Tensor) -> Tensor:
    """The largest entry of each of the K, (K, 1, 1, 1)."""
    return x.amax((1, 2, 3), keepdim=True)


def read_out(features: Tensor, targets: Tensor, fc: tuple[Tensor, Tensor] | None) -> Tensor:
    """The gradient (K, F) of each target's probability with respect to the features (1, F).

    The probability is the softmax of y_t·exp(−½((y − y_t)/σ)²), σ the largest |y − y_t|: near
    logits compete, far ones do not. Without ``fc`` the logits are the features themselves.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        index = targets.clone()[:, None]  # a copy: what inference mode made has no gradients
        x = features.clone().repeat(len(targets), 1).requires_grad_()
        y = x if fc is None else F.linear(x, *fc)
        own = y.gather(1, index)
        sigma = (y - own).abs().amax(1, keepdim=True).clamp(min=EPS)
        chance = (own * torch.exp(-0.5 * ((y - own) / sigma) ** 2)).softmax(1)
        (gradient,) = torch.autograd.grad(chance.gather(1, index).sum(), x)
    return gradient


def flat(x: Tensor, weight: Tensor, relevance: Tensor, stride: int, padding: int) -> Tensor:
    """C: relevance shared out by |x|·|w|."""
    size, wide = (len(relevance), *x.shape[1:]), weight.abs()
    reached = F.conv2d(x.abs(), wide, stride=stride, padding=padding)
    share = conv2d_input(size, wide, ratio(relevance, reached), stride=stride, padding=padding)
    return x.abs() * share


def factorize(values: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """How much more each pixel is like the positive support than like the negative one.

    ``values`` (K, C, h, w), the supports (K, 1, h, w) of 0 and 1. The two supports' mean vectors
    are the columns of a ridge regression of every pixel's vector; returns relu(w₊ − w₋),
    (K, 1, h, w).
    """
    steps = torch.sigmoid(SHARPNESS * values)
    means = [
        ratio((steps * part).sum((2, 3)), part.sum((1, 2, 3))[:, None])
        for part in (negative, positive)
    ]
    basis = torch.stack(means, 2)  # (K, C, 2)
    gram = basis.transpose(1, 2) @ basis + torch.eye(2, device=basis.device)
    weights = F.relu(torch.linalg.solve(gram, basis.transpose(1, 2) @ steps.flatten(2)))
    return F.relu(weights[:, 1:] - weights[:, :1]).view(len(values), 1, *values.shape[-2:])


def convolution(
    x: Tensor, weight: Tensor, relevance: Tensor, gradient: Tensor, stride: int
) -> tuple[Tensor, Tensor]:
    """Relevance and gradient before a 3×3 convolution: C plus the residual of its factorization.

    R = (F_x + M) / (1 + e^−C) + F_dx + A on the support of C, shifted to a sum of zero: F_x and
    F_dx factorize activations and gradients, M is the positive part of x·∂x, A what the weights
    alone would share out.
    """
    size = (len(relevance), *x.shape[1:])

    def back(w: Tensor, s: Tensor) -> Tensor:
        return conv2d_input(size, w, s, stride=stride, padding=1)

    before = back(weight, gradient)
    salience = F.relu((x * before).mean(1, keepdim=True))
    salience = ratio(salience, largest(salience))
    shared = flat(x, weight, relevance, stride, 1)
    phi = shared.mean(1, keepdim=True)
    positive, negative = (phi > 0).float(), (phi < 0).float()
    seen = back(weight, gradient * (relevance != 0))
    f_dx = factorize(ratio(seen, largest(seen)), positive, negative)
    f_x = factorize(ratio(x, largest(x)).expand(size), positive, negative)
    wide = weight.abs()
    blank = F.conv2d(torch.ones_like(x), wide, stride=stride, padding=1)
    spread = back(wide, ratio(relevance, blank))
    support = (shared != 0).float()
    residual = (ratio(f_x + salience, 1 + torch.exp(-shared)) + f_dx + spread) * support
    total, count = (v.sum((1, 2, 3), keepdim=True) for v in (residual, support))
    return shared + residual - ratio(total, count) * support, before


def through_relu(x: Tensor, relevance: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance and gradient before a ReLU."""
    return F.relu(x) * ratio(relevance, F.relu(x)), gradient * (x > 0)


def back_through(
    state: State, block: Block, relevance: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Relevance and gradient before a bottleneck; 1×1 convolutions use the flat rule."""
    name, stride = block.name, block.stride
    total = block.branch + block.shortcut
    relevance, gradient = through_relu(total, relevance, gradient)
    quotient = ratio(relevance, total)
    main, side = block.branch * quotient, block.shortcut * quotient
    side_gradient = gradient
    if f"{name}.downsample.0.weight" in state:
        weight = state[f"{name}.downsample.0.weight"]
        side = flat(block.x, weight, side, stride, 0)
        slope = batch_norm_slope(state, f"{name}.downsample.1")
        size = (len(relevance), *block.x.shape[1:])
        side_gradient = conv2d_input(size, weight, gradient * slope, stride=stride)
    weight = state[f"{name}.conv3.weight"]
    gradient = gradient * batch_norm_slope(state, f"{name}.bn3")
    main = flat(block.conv3, weight, main, 1, 0)
    gradient = conv2d_input((len(relevance), *block.conv3.shape[1:]), weight, gradient)
    main, gradient = through_relu(block.relu2, main, gradient)
    gradient = gradient * batch_norm_slope(state, f"{name}.bn2")
    weight = state[f"{name}.conv2.weight"]
    main, gradient = convolution(block.conv2, weight, main, gradient, stride)
    main, gradient = through_relu(block.relu1, main, gradient)
    weight = state[f"{name}.conv1.weight"]
    gradient = gradient * batch_norm_slope(state, f"{name}.bn1")
    main = flat(block.x, weight, main, 1, 0)
    gradient = conv2d_input((len(relevance), *block.x.shape[1:]), weight, gradient)
    joined = block.x * (ratio(main, block.x) + ratio(side, block.x))
    return joined, gradient + side_gradient


def back_through_stem(state: State, trace: Trace, relevance: Tensor) -> Tensor:
    """From the max pooling to the pixels; the first convolution by the z-box rule."""
    pooled, index = F.max_pool2d(trace.pool, 3, 2, 1, return_indices=True)
    count = len(relevance)
    spread = trace.pool.new_zeros(count, trace.pool.shape[1], trace.pool[0, 0].numel())
    quotient = ratio(relevance, pooled).flatten(2)
    spread.scatter_add_(2, index.flatten(2).expand(count, -1, -1), quotient)
    relevance = trace.pool * spread.view(count, -1, *trace.pool.shape[-2:])
    relevance, _ = through_relu(trace.relu, relevance, relevance)
    x, weight = trace.image, state["conv1.weight"]
    parts = (
        (x, weight),
        (-torch.full_like(x, float(x.min())), weight.clamp(min=0)),
        (-torch.full_like(x, float(x.max())), weight.clamp(max=0)),
    )
    reached = sum(F.conv2d(v, w, stride=2, padding=3) for v, w in parts)
    assert isinstance(reached, Tensor)
    share = ratio(relevance, reached)
    size = (count, *x.shape[1:])
    found = sum(v * conv2d_input(size, w, share, stride=2, padding=3) for v, w in parts)
    assert isinstance(found, Tensor)
    return found


def relevance_maps(
    state: State, trace: Trace, targets: Tensor, fc: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """(K, 1, H, W): the signed map of each target, divided by its largest entry."""
    gradient = read_out(trace.features, targets, fc)[:, :, None, None]
    relevance = trace.features[:, :, None, None] * gradient
    area = trace.last[0, 0].numel()
    pooled = trace.last.mean((2, 3), keepdim=True)
    relevance = trace.last / area * ratio(relevance, pooled)
    gradient = (gradient / area).expand_as(relevance)
    for block in reversed(trace.blocks):
        relevance, gradient = back_through(state, block, relevance, gradient)
    relevance = back_through_stem(state, trace, relevance)
    return ratio(relevance, largest(relevance)).sum(1, keepdim=True)
