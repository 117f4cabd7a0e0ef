"""What the network costs on a machine, in seconds: the record that plans are made with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Seconds: of a call, of a pixel in it, of a pixel of the encoder, of one in one step; of a
    window shape that was not seen before; of a pixel's noise and of its way back to a picture; of
    all else that a latent takes in a run, 0 where no run has shown it."""

    call: float
    pixel: float
    encode: float
    step: float
    shape: float = 0.0
    once: float = 0.0
    pace: float = 1.0
    around: float = 0.0

    @property
    def overhead_pixels(self) -> float:
        """What a call costs before its first pixel, in pixels, as a power of four.

        Most shapes of a plan are used once or twice, so each call is taken to bring a new one.
        Rounded, so that measuring again gives the same plan and so the same bytes.
        """
        ratio = (self.call + self.shape) / self.pixel
        powers = (1024.0, 4096.0, 16384.0, 65536.0)
        return next((p for p in powers if ratio < 2 * p), 262144.0)
