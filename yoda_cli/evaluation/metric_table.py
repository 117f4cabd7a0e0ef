"""The table of all metrics: name → better direction, the definition in words, and the function.

The command line reads the names before NumPy and torch are loaded: a module of metrics is imported
when one of its functions is first called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from yoda_cli.evaluation import metrics
    from yoda_cli.evaluation.metrics import libraries
    from yoda_cli.evaluation.metrics import niqe as of_niqe
else:

    class Later:
        """A module whose import waits until something of it is asked for."""

        def __init__(self, name: str) -> None:
            self.name = name

        def __getattr__(self, attribute: str) -> Any:
            return getattr(import_module(self.name), attribute)

    metrics = Later("yoda_cli.evaluation.metrics")
    libraries = Later("yoda_cli.evaluation.metrics.libraries")
    of_niqe = Later("yoda_cli.evaluation.metrics.niqe")


class Frame(NamedTuple):
    """How numbers are taken: ``on_luma`` or RGB, ``border`` pixels cropped on each side."""

    on_luma: bool
    border: int


class Sample(NamedTuple):
    """One result at 8 bits, its truth, its input, and where its tiles met."""

    sr: Tensor
    hr: Tensor
    lr: Tensor
    tile_lines: tuple[Sequence[int], Sequence[int]]


class Metric(NamedTuple):
    """``measure`` one sample; ``better`` is "higher", "lower", "one" or "zero"."""

    name: str
    better: str
    definition: str
    measure: Callable[[Sample, Frame], float]


#: Metrics with networks: the registry's file of each one's backbone.
NETWORKS = {
    "lpips-alex": "alexnet-owt-7be5be79.pth",
    "lpips-vgg": "vgg16-397923af.pth",
    "lpips-squeeze": "squeezenet1_1-b8a52dc0.pth",
    "dists": "vgg16-397923af.pth",
}


PLAIN = {
    metric.name: metric
    for metric in (
        Metric("psnr", "higher", "PSNR in dB on {channel}, {border}-pixel border, 8 bits",
               lambda s, f: metrics.psnr(s.sr, s.hr, border=f.border, on_luma=f.on_luma)),
        Metric("ssim", "higher", "SSIM on {channel}, {border}-pixel border, window 11, sigma 1.5",
               lambda s, f: metrics.ssim(s.sr, s.hr, border=f.border, on_luma=f.on_luma)),
        Metric("texture", "lower", "texture distance: local sliced Wasserstein distance of the "
               "high band's 5x5 patches on Y, {border}-pixel border",
               lambda s, f: metrics.texture_distance(s.sr, s.hr, border=f.border)),
        Metric("detail", "one", "detail ratio: RMS of Y's high band (sigma 1.5) over HR's",
               lambda s, f: metrics.detail_ratio(s.sr, s.hr, border=f.border)),
        Metric("colour", "lower", "largest difference of the channel means, in 1/255",
               lambda s, f: metrics.colour_error(s.sr, s.hr)),
        Metric("lr-psnr", "higher", "LR consistency: PSNR in dB on RGB of the bicubic-reduced "
               "result against LR", lambda s, f: metrics.lr_consistency(s.sr, s.lr)),
        Metric("niqe", "lower", "NIQE (own fit: {niqe})", lambda s, f: of_niqe.niqe(s.sr)),
        Metric("seam", "zero", "gradient of Y across tile lines over that 4 and 8 pixels aside, "
               "minus 1; empty without tiles", lambda s, f: metrics.seam(s.sr, *s.tile_lines)),
        Metric("grid", "zero", "amplitude of Y's high band by position modulo 2, 4 and 8: largest "
               "over smallest, minus 1", lambda s, f: metrics.grid(s.sr)),
        Metric("weave", "one", "highest peak of Y's high band's spectrum in HR's flattest tenth "
               "over the median around it", lambda s, f: metrics.weave(s.sr, s.hr)),
    )
}  # fmt: skip

#: Metrics that libraries compute: how to get one, its better direction, and its definition.
LIBRARIES: dict[str, tuple[Callable[[], Callable[[Tensor, Tensor], float]], str, str]] = {
    "gmsd": (lambda: libraries.gmsd(), "lower", "GMSD on RGB (piq)"),
    "jod": (
        lambda: libraries.jod(), "higher",
        "JOD of ColorVideoVDP on a 4K display, 10 at best (cvvdp)",
    ),
}  # fmt: skip

IDENTITY = "identity"
NAMES = (*PLAIN, *LIBRARIES, *NETWORKS, IDENTITY)
