"""AddSR's reference vectors: networks, image tokens and tags, sampling, by the project's code."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from yoda_cli.config import SampleDefaults
from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.diffusion.timesteps import four_timesteps
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.images.color import adain_fix, wavelet_fix
from yoda_cli.models.base import Condition, Guidance
from yoda_cli.models.latent.addsr import dape_input, picture_hint, refined_picture
from yoda_cli.models.latent.autoencoder import SCALING
from yoda_cli.models.latent.denoising import make_latent_schedule
from yoda_cli.models.model import Model
from yoda_cli.models.nets import seesr
from yoda_cli.models.nets.filling import build_filled
from yoda_cli.tiling.overlap import gaussian_weights, sliding_windows
from yoda_cli.tiling.plan import window_plan
from yoda_cli.upscaling.denoisers import RefiningDenoiser, WindowedDenoiser


def part(golden, prefix):
    return {
        key.removeprefix(prefix): value
        for key, value in golden.state.items()
        if key.startswith(prefix)
    }


def seesr_net(golden, name, make):
    """The golden's U-Net or ControlNet; heads and groups are not in the tensors."""
    told = golden.config["config"]["unet"]
    state = part(golden, f"{name}.")
    config = seesr.infer_seesr(
        state, heads=tuple(told["attention_head_dim"]), groups=told["norm_num_groups"]
    )
    assert config.channels == tuple(told["block_out_channels"])
    assert config.blocks == told["layers_per_block"]
    assert config.context == told["cross_attention_dim"]
    assert config.image_context == golden.config["config"]["image_cross_attention_dim"]
    widths = golden.config["config"]["controlnet"]["conditioning_embedding_out_channels"]
    assert config.stem == (tuple(widths) if name == "controlnet" else ())
    return build_filled(lambda: make(config), seesr.seesr_name, state, "golden")


def nets(golden):
    unet = seesr_net(golden, "unet", seesr.make_unet)
    control = seesr_net(golden, "controlnet", seesr.make_control)
    inputs, out = golden.inputs, {}

    def controls(x, t, text, tokens, image, scale=1.0):
        return control(
            x, t, text, image, scale, cross_attention_kwargs={seesr.TOKENS: tokens},
            return_dict=False,
        )  # fmt: skip

    def eps(x, t, text, tokens, steer=(None, None)):
        return unet(
            x, t, text, cross_attention_kwargs={seesr.TOKENS: tokens}, return_dict=False,
            down_block_additional_residuals=steer[0], mid_block_additional_residual=steer[1],
        )[0]  # fmt: skip

    seen = [inputs[name] for name in ("x", "t", "text", "features")]
    image = inputs["image"]
    out["cond_embedding"] = control.controlnet_cond_embedding(image)
    down, middle = controls(*seen, image)
    out |= {f"control.down.{i}": value for i, value in enumerate(down)}
    out["control.mid"] = middle
    out["eps"] = eps(*seen, (down, middle))
    out["eps_scale0.7"] = eps(*seen, controls(*seen, image, 0.7))
    out["eps_without_control"] = eps(*seen)
    blind = [*seen[:3], seen[3] * 0]
    out["eps_zero_features"] = eps(*blind, controls(*blind, image))
    odd = [inputs["odd.x"], *(value[:1] for value in seen[1:])]
    out["odd.eps"] = eps(*odd, controls(*odd, inputs["odd.image"]))
    return out


def dape(golden):
    told, state, image = golden.config["config"], golden.state, golden.inputs["image"]
    merged = seesr.merge_lora(state)
    plain = {key: value for key, value in state.items() if key in merged}
    net, without = (dape_net(golden, tensors) for tensors in (merged, plain))
    tagger = {
        key: value
        for key, value in merged.items()
        if not key.startswith(("visual_encoder.", "image_proj."))
    }
    config = seesr.infer_tagger(tagger, told["tagging"]["num_attention_heads"])
    assert config.layers == told["tagging"]["num_hidden_layers"]
    tags = build_filled(lambda: seesr.Tagger(config), seesr.tagger_name, tagger, "golden")
    tokens = net(image)
    logits = tags(tokens)
    return {
        "swin": net.features(image),
        "features": tokens,
        "features_without_lora": without(image),
        "tag_logits": logits,
        "tags": (logits.sigmoid() > golden.inputs["class_threshold"]).long(),
    }


def dape_net(golden, state):
    told = golden.config["config"]
    own = {
        key: value
        for key, value in state.items()
        if key.startswith(("visual_encoder.", "image_proj.")) and not key.endswith(seesr.DERIVED)
    }
    config = seesr.infer_dape(own)
    for name, value in (
        ("size", "image_size"), ("patch", "patch"), ("window", "window_size"),
        ("width", "embed_dim"), ("tokens", "proj"),
    ):  # fmt: skip
        assert getattr(config, name) == told[value]
    assert (list(config.depths), list(config.heads)) == (told["depths"], told["num_heads"])
    net = build_filled(lambda: seesr.DAPE(config), seesr.dape_name, own, "golden")
    net.make_derived()
    return net


CPU = torch.device("cpu")
SIDE = 384  # of what DAPE sees


@dataclass(eq=False)
class Analytic(nn.Module):
    """The reference's stand-ins for denoiser, VAE and DAPE, from the formulas of the metadata."""

    golden: object

    def __post_init__(self):
        super().__init__()
        told = self.golden.config["denoiser"]
        self.mixed, self.demixed = torch.tensor(told["W"]), torch.tensor(told["D"])
        self.alpha_bar = self.golden.outputs["alphas_cumprod"]

    def mix(self, matrix, x):
        return torch.einsum("oc,bchw->bohw", matrix, x)

    def encode(self, picture, noise):
        return SCALING * (self.mix(self.mixed, F.avg_pool2d(picture, 8)) + 0.05 * noise)

    def decode(self, z):
        return F.interpolate(self.mix(self.demixed, z / SCALING), scale_factor=8)

    def see(self, picture):
        return dape_input(picture, SIDE).mean((2, 3))[:, None]

    def predict(self, z_t, t, condition, mask):
        """ẑ_0 by way of eps, as a network would give it."""
        eps, signal, sigma = self.eps(z_t, t, condition)
        return (z_t - sigma * eps) / signal

    def eps(self, z_t, t, condition):
        pool = F.avg_pool2d(F.pixel_shuffle(condition.maps["hint"], 8), 8)
        text, image = (condition.guidance.tokens[name] for name in ("text", "image"))
        wanted = SCALING * self.mix(self.mixed, 2 * pool - 1) + 0.05 * z_t.tanh()
        wanted = wanted + 0.1 * z_t.mean((2, 3), keepdim=True) + 0.03 * image.mean()
        wanted = wanted + 0.02 * ((t - 1) / 1000) * text.mean()
        signal, sigma = self.alpha_bar[t - 1].sqrt(), (1 - self.alpha_bar[t - 1]).sqrt()
        return (z_t - signal * wanted) / sigma, signal, sigma


@dataclass
class Chain:
    """One run of the reference's loop by ours, with every step's tensors."""

    golden: object
    size: str = "small"
    start: str = "lr"
    weight: float = 0.4
    steps: int = 4
    tile: int = 0
    overlap: int = 0
    seen: dict = field(default_factory=dict)
    key: str = ""

    def run(self):
        inputs = {
            name.removeprefix(f"{self.size}."): value
            for name, value in self.golden.inputs.items()
            if name.startswith(f"{self.size}.")
        }
        schedule, lr, net = make_latent_schedule("eps"), inputs["image"], Analytic(self.golden)
        z_lr = net.encode(2 * lr - 1, inputs["noise.vae"])
        chain = four_timesteps(1000, self.steps)
        ones = torch.ones_like(z_lr[:, :1])
        plan = window_plan(
            ones, chain, 1.0, 1000, self.tile, self.tile - self.overlap, skip=True
        )  # fmt: skip
        model = Model("golden", net, SampleDefaults(), CPU, torch.float32)

        def condition_of(picture, image):
            hint = picture_hint(picture, *picture.shape[-2:])
            guidance = Guidance({"text": inputs["text"], "image": image})
            return Condition(z_lr, {"hint": hint}, guidance=guidance)

        def refine(condition, z_0):
            picture = refined_picture(net.decode(z_0), lr, self.weight)
            self.seen[f"{self.key}.cond"] = picture
            square = dape_input(picture, SIDE)
            self.seen[f"{self.key}.dape_input_every_16th"] = square[..., ::16, ::16]
            self.seen[f"{self.key}.features"] = net.see(picture)
            return condition_of(picture, net.see(picture))

        first = condition_of(lr, inputs["features0"])
        denoiser = RefiningDenoiser(WindowedDenoiser(model, first, plan), refine)

        def predict(z_t, t, mask):
            self.key = f"t{t - 1}"
            z_0 = denoiser(z_t, t, mask)
            signal, sigma = schedule.signal(t), schedule.sigma(t)
            self.seen |= {
                f"{self.key}.x": z_t.clone(), f"{self.key}.z0": z_0,
                f"{self.key}.eps": (z_t - signal * z_0) / sigma,
            }  # fmt: skip
            return z_0

        def draw(step):
            return inputs[f"noise.{step + 249}" if step < 1000 else "noise.start"]

        z_0 = masked_sample(
            predict, SAMPLERS["renoise"].step, schedule, chain, AttentionMask(ones, 1.0, 1000),
            z_lr, draw, start=self.start,
        )  # fmt: skip
        self.seen["image"] = (net.decode(z_0) / 2 + 0.5).clamp(0, 1)
        return self.seen


def sampling(golden):
    out = {}
    for start in ("lr", "noise"):
        for weight in golden.config["psr_weights"]:
            made = Chain(golden, start=start, weight=weight).run()
            out |= {f"{start}.psr{weight}.{name}": value for name, value in made.items()}
    for steps in (1, 2, 3):
        out[f"steps{steps}.image"] = Chain(golden, steps=steps).run()["image"]
    tile, overlap = golden.config["tile"], golden.config["overlap"]
    made = Chain(golden, size="big", tile=tile, overlap=overlap).run()
    out |= {f"tiled.{name}": value for name, value in made.items()}
    out["tiled.windows"] = windows_of(*golden.inputs["big.noise.start"].shape[-2:], tile, overlap)
    schedule = make_latent_schedule("eps")
    out["timesteps"] = torch.tensor(four_timesteps(1000, 4)[:-1]) - 1
    out["alphas_cumprod"] = schedule.alpha_bar[1:].float()
    out["train.teacher_weight_t0_to_999_every_37th"] = schedule.alpha_bar[1::37].sqrt().float()
    out["train.ta_weight_f64"] = 0.5 * 2.1 ** torch.arange(4, dtype=torch.float64)
    for name in golden.outputs:
        parts = name.split(".")
        if parts[0] == "gaussian_weights_f64":
            out[name] = gaussian_weights(int(parts[1]), int(parts[1]))
        if parts[0] == "windows":
            (height, width), tile, overlap = (
                parts[1].split("x"), parts[2].removeprefix("tile"), parts[3].removeprefix("overlap")
            )  # fmt: skip
            out[name] = windows_of(int(height), int(width), int(tile), int(overlap))
        if parts[:2] == ["vae", "tiles"]:
            height, width = (int(n) for n in parts[3].split("x"))
            plan = decoder_tiles(height, width, int(parts[4].removeprefix("tile")))
            out[name] = plan[parts[2]]
    image, source = (
        golden.inputs[f"colour.{name}_uint8_hwc"].permute(2, 0, 1)[None] / 255
        for name in ("image", "source")
    )
    for name, fix in (("adain", adain_fix), ("wavelet", wavelet_fix)):
        fixed = fix(image, source).clamp(0, 1) * 255
        out[f"colour.{name}_uint8_hwc"] = fixed.to(torch.uint8)[0].permute(1, 2, 0)
    return out


def windows_of(height, width, tile, overlap):
    """(top, left, side) column by column: the order in which the reference calls them."""
    windows = sliding_windows(height, width, tile, tile - overlap)
    ordered = sorted(windows, key=lambda window: (window.left, window.top))
    return torch.tensor([(w.top, w.left, w.height) for w in ordered])


def decoder_tiles(height, width, tile, pad=11):
    """The reference's own tiles of its decoder, (x1, x2, y1, y2); ours are planned otherwise."""

    def cuts(length):
        count = max(1, math.ceil((length - 2 * pad) / tile))
        side = rounded(math.ceil((length - 2 * pad) / count))
        return [(pad + i * side, min(pad + (i + 1) * side, length)) for i in range(count)]

    def rounded(side):
        for divisor in (32, 16, 8, 4, 2):
            up = math.ceil(side / divisor) * divisor
            if up <= tile:
                return up
        return side

    def grown(cut, length):
        return max(0, cut[0] - pad), min(cut[1] + pad, length)

    def shown(cut, length):
        low, high = cut[0] if cut[0] > pad else 0, cut[1] if cut[1] < length - pad else length
        return 8 * low, 8 * high

    boxes = [(x, y) for y in cuts(height) for x in cuts(width)]
    return {
        "latent_in": torch.tensor([(*grown(x, width), *grown(y, height)) for x, y in boxes]),
        "pixels_out": torch.tensor([(*shown(x, width), *shown(y, height)) for x, y in boxes]),
    }


KINDS = {
    "addsr_nets_forward": nets,
    "addsr_dape": dape,
    "addsr_sampling": sampling,
}
