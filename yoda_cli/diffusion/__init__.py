"""The method: schedules, samplers, noise and masked reverse diffusion.

Pure: knows no network, no tile, no file and no screen.
"""

from yoda_cli.diffusion.noise import NoiseField, make_draw
from yoda_cli.diffusion.samplers import SAMPLERS, Sampler
from yoda_cli.diffusion.schedule import NoiseSchedule, make_schedule
from yoda_cli.diffusion.timesteps import CHAINS
from yoda_cli.diffusion.yoda import AttentionMask, MaskPolicy, masked_sample, time_mask

__all__ = [
    "CHAINS",
    "SAMPLERS",
    "AttentionMask",
    "MaskPolicy",
    "NoiseField",
    "NoiseSchedule",
    "Sampler",
    "make_draw",
    "make_schedule",
    "masked_sample",
    "time_mask",
]
