"""Pictures to latents and back, in tiles that share their normalisation.

A group norm of a tile alone would see other statistics than its neighbour, and the border between
them would show. So statistics are measured first, on a few tiles together, one pooled figure for
each layer; then every tile is computed with them. A picture that fits is computed whole.
Pictures are (1, 3, H, W) in [-1, 1], sides divisible by 8; latents (1, 4, H/8, W/8), scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.models.latent.denoising import FACTOR
from yoda_cli.models.nets import ldm
from yoda_cli.models.nets.filling import build_filled
from yoda_cli.models.nets.stablesr import WrappedVAE, infer_wrapped_vae, wrapped_vae_name
from yoda_cli.tiling.windows import Tile, make_tiles

SCALING = 0.18215  # of Stable Diffusion's latents, to a variance of 1; published
HALO = 8  # latents around a tile, that its convolutions see
SAMPLED = 4  # tiles whose statistics are pooled


class PooledGroupNorm(nn.Module):
    """A group norm whose statistics can be measured over a batch of tiles, then held."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm
        self.measuring = False
        self.held: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.measuring and self.held is None:
            out: Tensor = self.norm(x)
            return out
        groups = x.view(x.shape[0], self.norm.num_groups, -1, *x.shape[2:])
        if self.measuring:
            others = tuple(axis for axis in range(groups.ndim) if axis != 1)
            variance, mean = torch.var_mean(groups.float(), others, correction=0, keepdim=True)
            self.held = (mean, (variance + self.norm.eps).rsqrt())
        assert self.held is not None
        mean, inverse = self.held
        if mean.ndim != groups.ndim:
            raise ValueError("a norm was measured on tensors of another rank")
        scaled = ((groups.float() - mean) * inverse).flatten(1, 2).to(x.dtype)
        each = (-1, *(1,) * (x.ndim - 2))
        return scaled * self.norm.weight.view(each) + self.norm.bias.view(each)


class Autoencoder:
    """The VAE of Stable Diffusion; ``tile`` latents a side at most in one piece, 0 for all.

    ``w`` above 0 is how much of the restored picture's features a wrapped decoder takes up; they
    are computed again for each tile, because those of a large picture would fill the memory.
    """

    def __init__(self, vae: Any, device: torch.device, tile: int = 0, w: float = 0.0) -> None:
        self.vae, self.device, self.tile, self.w = vae, device, tile, w
        _pool_norms(vae)
        self.norms = [m for m in vae.modules() if isinstance(m, PooledGroupNorm)]

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """The mean of the posterior, nothing drawn."""

        def run(x: Tensor) -> Tensor:
            moments = self.vae.quant_conv(self.vae.encoder(x))
            mean: Tensor = moments.chunk(2, 1)[0]
            return mean * SCALING

        size = (image.shape[-2] // FACTOR, image.shape[-1] // FACTOR)
        latent = image.new_empty(1, self.vae.config.latent_channels, *size)
        return self._tiled(run, [(image, FACTOR)], latent, 1)

    @torch.no_grad()
    def decode(self, latent: Tensor, restored: Tensor | None = None) -> Tensor:
        """The picture, not clipped; ``restored`` is read where its features are wanted."""

        def run(z: Tensor) -> Tensor:
            out: Tensor = self.vae.decoder(self.vae.post_quant_conv(z / SCALING))
            return out

        def run_wrapped(z: Tensor, image: Tensor) -> Tensor:
            out: Tensor = self.vae.decode(z / SCALING, self.vae.features(image), self.w)
            return out

        size = (latent.shape[-2] * FACTOR, latent.shape[-1] * FACTOR)
        target = latent.new_empty(1, 3, *size)
        if self.w == 0 or restored is None:
            return self._tiled(run, [(latent, 1)], target, FACTOR)
        return self._tiled(run_wrapped, [(latent, 1), (restored, FACTOR)], target, FACTOR)

    def _tiled(
        self, run: Callable[..., Tensor], sources: Sequence[tuple[Tensor, int]], target: Tensor,
        target_factor: int,
    ) -> Tensor:  # fmt: skip
        """``target`` filled by ``run`` over tiles of ``sources``.

        Factors are pixels to a latent.
        """
        source, factor = sources[0]
        height, width = (n // factor for n in source.shape[-2:])
        tiles = make_tiles(height, width, core=self.tile, halo=HALO, align=1)

        def pieces(tile: Tile) -> list[Tensor]:
            return [
                tile.window.multiplied(factor).cut(source).to(self.device).float()
                for source, factor in sources
            ]

        if len(tiles) == 1:
            return run(*pieces(tiles[0])).cpu()
        with self._measured(run, [pieces(tile) for tile in _spread(tiles)]):
            for tile in tiles:
                tile.multiplied(target_factor).paste(target, run(*pieces(tile)).cpu())
        return target

    @contextmanager
    def _measured(
        self, run: Callable[..., Tensor], pieces: Sequence[Sequence[Tensor]]
    ) -> Iterator[None]:
        """Statistics of ``pieces``, of several tiles, held in every norm."""
        batches = [_as_batch(of_one_source) for of_one_source in zip(*pieces, strict=True)]
        for norm in self.norms:
            norm.measuring = True
        try:
            run(*batches)
            for norm in self.norms:
                norm.measuring = False
            yield
        finally:
            for norm in self.norms:
                norm.measuring, norm.held = False, None


def _as_batch(pieces: Sequence[Tensor]) -> Tensor:
    """``pieces`` one after another, grown to the size of the largest."""
    tall, wide = (max(p.shape[axis] for p in pieces) for axis in (-2, -1))
    return torch.cat(
        [F.pad(p, (0, wide - p.shape[-1], 0, tall - p.shape[-2]), mode="replicate") for p in pieces]
    )


def _spread(tiles: Sequence[Tile]) -> list[Tile]:
    """A few tiles, spread evenly."""
    if len(tiles) <= SAMPLED:
        return list(tiles)
    return [tiles[round(i * (len(tiles) - 1) / (SAMPLED - 1))] for i in range(SAMPLED)]


def _pool_norms(net: nn.Module) -> None:
    """Every group norm in ``net``, unless it is pooled already, becomes one that can be."""
    for name, child in list(net.named_children()):
        if isinstance(child, nn.GroupNorm):
            setattr(net, name, PooledGroupNorm(child))
        elif not isinstance(child, PooledGroupNorm):
            _pool_norms(child)


def load_vae(
    state: Mapping[str, Tensor], name: str, device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Any:  # fmt: skip
    """The autoencoder of LDM tensors, without prefixes."""
    config = ldm.infer_vae(state)
    return build_filled(
        lambda: ldm.make_vae(config), lambda key: ldm.vae_name(key, config), state, name,
        device, dtype,
    )  # fmt: skip


def load_wrapped_vae(
    state: Mapping[str, Tensor], name: str, device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> WrappedVAE:  # fmt: skip
    """The autoencoder of a file with feature wrapping, without prefixes."""
    config = infer_wrapped_vae(state)
    return build_filled(
        lambda: WrappedVAE(config), lambda key: wrapped_vae_name(key, config), state, name,
        device, dtype,
    )  # fmt: skip
