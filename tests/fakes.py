"""A backbone in closed form, and small pictures, for where the network does not matter."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from yoda_cli.config import SampleDefaults
from yoda_cli.diffusion.schedule import make_schedule
from yoda_cli.images import Animation, frames_of, peek, read_picture, scan_animation
from yoda_cli.images.resize import as_floats, imresize
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.base import Condition
from yoda_cli.models.calibration import costs_of
from yoda_cli.models.model import Model
from yoda_cli.tiling.geometry import Geometry
from yoda_cli.tiling.plan import make_plan
from yoda_cli.upscaling.checks import check_options
from yoda_cli.upscaling.memory_limits import largest_window
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve


class ClosedForm(Backbone):
    """ẑ_0 = half the state: exact, local, and any change of draw shows in the result."""

    prediction = "x0"
    # Bicubic looks 8 pixels far.
    geometry = Geometry(scale=4, stride=2, halo=8, plan_halo=8, pixel_bytes=100)

    def __init__(self):
        super().__init__()
        self.schedule = make_schedule("cosine", 100)
        self.calls = 0

    def encode(self, lr, strength=0.0):
        lr_up = imresize(lr, scale=4)
        contrast = 2 * (lr - 0.5).abs().mean(1, keepdim=True)
        return Condition(torch.zeros_like(lr_up), {"lr_up": lr_up}, contrast.clamp(0, 1))

    def predict(self, z_t, t, condition, mask):
        self.calls += 1
        return 0.5 * z_t

    def denoise(self, z_t, t, condition, mask):
        return 0.5 * z_t

    def decode(self, z_0, condition):
        return condition.maps["lr_up"] + 0.1 * z_0

    def to_z(self, hr, condition):
        return (hr - condition.maps["lr_up"]) * 10


def fake_model(**defaults):
    net = ClosedForm()
    model = Model("fake", net, SampleDefaults(**defaults), torch.device("cpu"), torch.float32)
    costs_of(model)
    net.calls = 0
    return model


def enlarge(lr, model, options, *observer, **more):
    """``upscale_tensor`` with what was asked, checked and resolved."""
    check_options(options)
    return upscale_tensor(lr, model, resolve(options, model), *observer, **more)


def plan_of(attention, model, asked, *, lean=False):
    """The plan of a canvas in one block; ``attention`` is (1, 1, H, W) on it."""
    settings, costs = resolve(asked, model), costs_of(model)
    pixels = attention.shape[-2] * attention.shape[-1]
    return make_plan(
        attention, settings.sampling.timesteps, settings.mask.lower_bound,
        model.backbone.geometry, costs.overhead_pixels,
        largest_window(model, pixels, lean=lean), settings.tiles,
    )  # fmt: skip


def photo(height, width, seed=0):
    """A picture with smooth areas, edges and fine texture, (1, 3, H, W) in [0, 1]."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.2, 0.8, (1, 3, max(height // 16, 1), max(width // 16, 1)))
    smooth = imresize(torch.from_numpy(coarse), (height, width))
    texture = torch.from_numpy(rng.normal(0, 0.08, (1, 3, height, width)))
    half = (torch.arange(width) > width // 2).double()
    return (smooth + texture * half + 0.2 * half * (smooth > 0.5)).clamp(0, 1).float()


def save_photo(path, height, width, seed=0):
    pixels = (photo(height, width, seed)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path)
    return path


def read_frames(source):
    """All frames of a file at once, as floats."""
    if peek(source).frames < 2:
        return Animation((read_picture(source),), (0.0,), 1)
    header = scan_animation(source)
    frames = [replace(frame, rgb=as_floats(frame.rgb)) for frame, _ in frames_of(source)]
    return Animation(tuple(frames), header.milliseconds, header.plays)


def always(gains):
    """A judge of every region that always says the same."""

    def judge_of(view):
        seen = []

        def judge(z_0, t):
            seen.append(t)
            return gains if len(seen) > 1 else None

        return judge

    return judge_of
