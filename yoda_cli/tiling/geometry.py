"""What a network looks like from outside: the grids it works on, and how far it sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """Sizes in output pixels, if not said otherwise.

    ``scale`` is the native factor. ``stride``: the LR picture's sides must be multiples of it.
    ``halo`` is how far one call looks beyond a pixel, and ``plan_halo`` how far where tiles move
    from step to step, so that what is cut off does not add up. ``pixel_bytes`` is about what one
    call holds per output pixel. ``z_channels`` is the C of the diffusion space, ``in_channels``
    that of what is enlarged: 3 but for latents. ``base_halo`` is how far the unrefined picture
    looks, where that may be farther than an encoder's tiles see.
    """

    scale: int
    stride: int
    halo: int
    plan_halo: int
    pixel_bytes: int
    z_channels: int = 3
    in_channels: int = 3
    base_halo: int = 0

    @property
    def align(self) -> int:
        """Edges of windows lie on multiples of this."""
        return self.scale * self.stride
