"""A recipe that trains in a second, for the tests of training."""

import torch

from yoda_cli.config import Recipe, SampleDefaults, TrainOptions

CPU = torch.device("cpu")
NET = {
    "scale": 4,
    "dim": 8,
    "dim_mults": [1, 2],
    "unet_blocks": 1,
    "unshuffle": 4,
    "mask_input": True,
    "encoder": "residual",
    "encoder_channels": 8,
    "encoder_blocks": 1,
    "num_steps": 50,
    "alpha_bar_min": 1e-4,
    "prediction": "x0",
    "residual_scale": 3.0,
    "clip_z0": 0.0,
    "lr_divisor": 255,
}
OPTIONS = TrainOptions(
    patch=32,
    batch=2,
    warmup=2,
    chains=(4, 0),
    attention={"uniform": 1, "learned": 1, "edge": 1, "constant": 1},
    degrade=0.5,
    validation_pictures=1,
    validation_steps=2,
)
RECIPE = Recipe("tiny", "srdiff", NET, OPTIONS, SampleDefaults(steps=4))
