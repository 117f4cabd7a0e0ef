"""Which steps of a training chain a short one keeps. Times count T … 1; 0 is the clean signal.

Every chain is a falling list that ends in 0. Published models were tuned with one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def spaced_timesteps(num_steps: int, steps: int) -> list[int]:
    """``[T, …, 0]`` with ``steps`` transitions, evenly spaced on the training chain.

    ``steps`` of T or more give the full chain.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    steps = min(steps, num_steps)
    return [num_steps - (num_steps * i) // steps for i in range(steps)] + [0]


def openai_timesteps(num_steps: int, steps: int) -> list[int]:
    """Both ends of the chain and what lies evenly between (Dhariwal & Nichol's respacing)."""
    steps = _at_most(num_steps, steps)
    stride = (num_steps - 1) / (steps - 1) if steps > 1 else 0.0
    kept = {round(stride * i) for i in range(steps)} if steps > 1 else {num_steps - 1}
    return [index + 1 for index in sorted(kept, reverse=True)] + [0]


def leading_timesteps(num_steps: int, steps: int) -> list[int]:
    """Every (T // steps)-th from the clean end, as DDIM's authors space them; T is left out."""
    stride = num_steps // _at_most(num_steps, steps)
    kept = [index for index in range(1, num_steps, stride) if index < num_steps]
    return [index + 1 for index in reversed(kept)] + [0]


def trailing_timesteps(num_steps: int, steps: int) -> list[int]:
    """Evenly from the noisy end, as Karras-style samplers are run over discrete chains."""
    steps = _at_most(num_steps, steps)
    stride = (num_steps - 1) / steps
    return [int(num_steps - 1 - stride * i) + 1 for i in range(steps)] + [0]


def four_timesteps(num_steps: int, steps: int) -> list[int]:
    """The first of four even steps, then the end: how AddSR runs in fewer than its four."""
    return [*spaced_timesteps(num_steps, 4)[: _at_most(4, steps)], 0]


def _at_most(num_steps: int, steps: int) -> int:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return min(steps, num_steps)


Chain = Callable[[int, int], list[int]]

#: By name; ``even`` is what our own models use.
CHAINS: dict[str, Chain] = {
    "even": spaced_timesteps,
    "openai": openai_timesteps,
    "leading": leading_timesteps,
    "trailing": trailing_timesteps,
    "four": four_timesteps,
}


def chain_timesteps(kind: str, num_steps: int, steps: int) -> Sequence[int]:
    """The chain called ``kind`` with about ``steps`` transitions."""
    return CHAINS[kind](num_steps, steps)
