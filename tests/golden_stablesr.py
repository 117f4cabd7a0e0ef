"""StableSR's reference vectors: networks, chains, windows, colour, pictures, by the project's code.

The reference's own habits that this project does not share (DDIM's two time axes, truncated bytes,
padding by another 32 pixels) stand here, not in the package.
"""

import itertools
import re
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from yoda_cli.config import SampleDefaults
from yoda_cli.diffusion.schedule import predict_z0, q_sample
from yoda_cli.diffusion.steps import ddim_step, ddpm_step
from yoda_cli.diffusion.timesteps import openai_timesteps
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.images.color import COLOR_FIXES, low_band
from yoda_cli.models.base import Condition, Guidance
from yoda_cli.models.latent.autoencoder import SCALING, load_wrapped_vae
from yoda_cli.models.latent.denoising import make_latent_schedule
from yoda_cli.models.latent.modulated import ModulatedDenoiser
from yoda_cli.models.model import Model
from yoda_cli.models.nets import ldm
from yoda_cli.models.nets import stablesr as nets
from yoda_cli.models.nets.filling import build_filled
from yoda_cli.tiling.overlap import gaussian_weights, sliding_windows
from yoda_cli.tiling.plan import window_plan
from yoda_cli.upscaling.denoisers import WindowedDenoiser

CPU = torch.device("cpu")
TOTAL = 1000


def part(golden, prefix):
    return {k.removeprefix(prefix): v for k, v in golden.state.items() if k.startswith(prefix)}


def everywhere(z):
    return torch.ones_like(z[:, :1], dtype=torch.bool)


def dense(z_lr):
    """A ≡ 1: plain sampling."""
    return AttentionMask(torch.ones_like(z_lr[:, :1]), 1.0, TOTAL)


def windowed(net, z_lr, chain, size=0, stride=0, guidance=None):
    """ẑ_0 of a whole canvas from its windows, for the times of ``chain``."""
    condition = replace(net.encode(z_lr), guidance=guidance)
    model = Model("golden", net, SampleDefaults(), CPU, torch.float32)
    plan = window_plan(torch.ones_like(z_lr[:, :1]), chain, 1.0, TOTAL, size, stride, skip=True)
    return WindowedDenoiser(model, condition, plan)


# -------------------------------------------------------------------------------------- networks


def encoder_net(state, heads):
    config = replace(nets.infer_encoder(state), heads=heads)
    return build_filled(lambda: nets.TimeAwareEncoder(config), nets.encoder_name, state, "golden")


def encoder(golden):
    net = encoder_net(part(golden, "structcond."), golden.config["config"]["num_heads"])
    x, t = golden.inputs["x"], golden.inputs["t"]
    out = {f"fea.{level.shape[-1]}": level for level in net(x, t)}
    return out | {"time_embedding": net.embed(t)}


def modulation(state):
    """Of published tensors without a prefix."""
    channels, maps = state["mlp_gamma.weight"].shape[0], state["mlp_shared.0.weight"].shape[1]

    def name(key):
        own, leaf = key.rsplit(".", 1)
        return f"{nets.MODULATION[own]}.{leaf}"

    return build_filled(lambda: nets.Modulation(channels, maps), name, state, "golden")


def residual_block(state):
    """Of published tensors without a prefix and without the modulation's."""
    out, inside = state["in_layers.2.weight"].shape[:2]
    time = state["emb_layers.1.weight"].shape[1]

    def make():
        return nets._residual_block(inside, out, time, nets.EPS)

    return build_filled(
        make, lambda key: nets.encoder_name(f"x.{key}").removeprefix("x."), state, "golden"
    )


def resblock(golden):
    inputs, out = golden.inputs, {}
    for name in golden.config["config"]["blocks"]:
        state = part(golden, f"{name}.")
        spade = {k.removeprefix("spade."): v for k, v in state.items() if k.startswith("spade.")}
        modulate = modulation(spade)
        block = residual_block({k: v for k, v in state.items() if not k.startswith("spade.")})
        x, h = inputs[f"{name}.x"], inputs[f"{name}.h"]
        features = inputs[f"fea.{x.shape[-1]}"]
        out[f"{name}.spade"] = modulate(h, features)
        out[f"{name}.y"] = nets.modulated(block, modulate, x, inputs["emb"], features)
    return out


def spade(golden):
    out = {}
    for name in golden.outputs:
        modulate = modulation(part(golden, f"unet.{name}.spade."))
        h = golden.inputs[f"h{modulate.norm.num_channels}"]
        out[name] = modulate(h, golden.inputs[f"fea.{h.shape[-1]}"])
    return out


def stablesr_net(golden, config, prediction="eps"):
    """The golden's U-Net and encoder; numbers of heads are not in the tensors."""
    unet, structcond = part(golden, "unet."), part(golden, "structcond.")
    shape = ldm.infer_unet(unet, config["unet_cfg"]["num_head_channels"])
    told = config["unet_cfg"]
    assert shape.channels == tuple(told["model_channels"] * m for m in told["channel_mult"])
    heads = config["structcond_cfg"]["num_heads"]
    net = ModulatedDenoiser(shape, replace(nets.infer_encoder(structcond), heads=heads), prediction)
    net.fill("unet", unet, "golden")
    net.fill("encoder", structcond, "golden")
    return net


def unet(golden):
    inputs, config, out = golden.inputs, golden.config, {}
    x, t, text, z_lr = (inputs[k] for k in ("x", "t", "c_txt", "z_lr"))
    chain = openai_timesteps(TOTAL, config["steps"])[::-1]  # 0 … T
    for prediction in ("eps", "v"):
        net = stablesr_net(golden, config["config"], prediction)
        for index in config["indices"]:
            now, then = chain[index + 1], chain[index]
            raw = net.run(x, torch.full((len(x),), now), text, z_lr)
            signal, sigma = net.schedule.signal(now), net.schedule.sigma(now)
            z_0 = predict_z0(prediction, raw, x, signal, sigma)
            step = ddpm_step(net.schedule, x, z_0, now, then, inputs["noise"])
            out[f"spaced{config['steps']}.{prediction}.i{index}.x_prev"] = step
        out |= over_windows(net, golden, chain)
    out |= {f"fea.{level.shape[-1]}": level for level in net.encoder(z_lr, t)}
    return out | {"model_output": net.run(x, t + 1, text, z_lr)}


def over_windows(net, golden, chain):
    """ε̂ averaged over windows: the estimates are, and the two differ by a fixed linear map."""
    inputs, config, out = golden.inputs, golden.config, {}
    x, z_lr = inputs["tiled.x"], inputs["tiled.z_lr"]
    t, s = chain[config["tiled_index"] + 1], chain[config["tiled_index"]]
    size = config["tile_size"]
    signal, sigma = net.schedule.signal(t), net.schedule.sigma(t)
    wanted, unwanted = inputs["c_txt"][:1], inputs["c_txt_uncond"][:1]
    guided = Guidance({"text": wanted}, {"text": unwanted}, config["cfg_scale"])
    for name, guidance in (("", Guidance({"text": wanted})), ("_cfg", guided)):
        stride = size - config["tile_overlap"]
        z_0 = windowed(net, z_lr, [t, s], size, stride, guidance)(x, t, everywhere(x))
        if net.prediction == "eps":
            out[f"tiled.model_output{name}"] = (x - signal * z_0) / sigma
    step = ddpm_step(net.schedule, x, z_0, t, s, inputs["tiled.noise"])
    return out | {f"tiled.{net.prediction}.x_prev": step}


def fuse(golden):
    state = part(golden, "fuse.")
    blocks = len({key.split(".")[1] for key in state if key.startswith("encode_enc_2.")})
    channels, growth = golden.config["config"]["out_ch"], golden.config["config"]["num_grow_ch"]
    config = nets.WrapConfig(ldm.VAEConfig((channels,), 1, 4), (0,), blocks, growth)

    def name(key):
        return nets.wrapped_vae_name(f"fuse.0.{key}", config).removeprefix(
            "decoder.fusion_layer_0."
        )

    net = build_filled(lambda: nets.FuseBlock(channels, blocks, growth), name, state, "golden")
    encoded, decoded = golden.inputs["enc"], golden.inputs["dec"]
    lacking = net(encoded, decoded)
    return {f"w{w:g}": decoded + w * lacking for w in golden.config["config"]["w"]}


def sampled(moments, noise):
    """The scaled latent that ``noise`` draws from the posterior."""
    mean, log_variance = moments.chunk(2, 1)
    return SCALING * (mean + torch.exp(log_variance.clamp(-30, 20) / 2) * noise)


def moments_of(vae, image):
    return vae.quant_conv(vae.encoder(image))


def cfw(golden):
    vae = load_wrapped_vae(part(golden, "vae."), "golden")
    image, z = golden.inputs["image"], golden.inputs["z"]
    features = vae.features(image)
    moments = moments_of(vae, image)
    out = {f"enc_fea.{i}": level for i, level in enumerate(features.values())}
    out |= {"moments": moments, "z_sampled": sampled(moments, golden.inputs["posterior_noise"])}
    for w in golden.config["config"]["w"]:
        out[f"decoded.w{w:g}"] = vae.decode(z / SCALING, features, w)
    return out


# ------------------------------------------------------------------------------- without networks


def colour(golden):
    content, style = golden.inputs["content"], golden.inputs["style"]
    low = low_band(content)
    return {
        "wavelet.low": low,
        "wavelet.high": content - low,
        "wavelet.fixed": COLOR_FIXES["wavelet"](content, style),
        "adain.fixed": COLOR_FIXES["adain"](content, style),
        "uint8": truncated(golden.inputs["quant"]),
    }


def truncated(image):
    """[-1, 1] as the reference makes bytes of it; this project rounds."""
    return ((image + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)


def tables(beta, full, before):
    """The reference's buffers, 0-based and fp32; their first logarithm is clipped."""
    variance = beta * (1 - before) / (1 - full)
    values = {
        "betas": beta,
        "alphas_cumprod": full,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": full.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - full).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - full).log(),
        "sqrt_recip_alphas_cumprod": (1 / full).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / full - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": beta * before.sqrt() / (1 - full),
        "posterior_mean_coef2": (1 - before) * (1 - beta).sqrt() / (1 - full),
    }
    return {name: value.float() for name, value in values.items()}


@dataclass
class Analytic(nn.Module):
    """The reference's stand-in for its networks, in its own 0-based times."""

    prediction: str
    cfg: float = 1.0

    def __post_init__(self):
        super().__init__()

    def raw(self, x, t, z_lr):
        angle = torch.tensor(t / 100)
        out = 0.6 * x + 0.3 * z_lr * (1 + t / 1000) + 0.1 * angle.sin()
        if self.cfg == 1:
            return out
        wanted, unwanted = out + 0.05 * 0.7, out - 0.05 * 0.4
        return unwanted + self.cfg * (wanted - unwanted)


LOOP = re.compile(r"loop(\d+)\.(eps|v)(?:\.cfg(\d+))?\.x")
DDIM = re.compile(r"ddim(\d+)\.eta(\d+)\.(eps|v)\.x")


def sampler(golden):
    schedule, inputs, out = make_latent_schedule("eps"), golden.inputs, {}
    beta, full = schedule.beta, schedule.alpha_bar
    for key, value in tables(beta[1:], full[1:], full[:-1]).items():
        out[f"full.{key}"] = value
    for count in golden.config["tables"]:
        chain = torch.tensor(openai_timesteps(TOTAL, count)).flip(0)
        ab, before = full[chain[1:]], full[chain[:-1]]
        for key, value in tables(1 - ab / before, ab, before).items():
            out[f"spaced{count}.{key}"] = value
        out[f"spaced{count}.timesteps"] = chain[1:] - 1
    z_lr, noises = inputs["z_lr"], inputs["noises"]
    out["start"] = q_sample(schedule, z_lr, TOTAL, inputs["start_noise"])
    for name in golden.outputs:
        if match := LOOP.fullmatch(name):
            net = Analytic(match[2], float(match[3] or 1))
            chain = openai_timesteps(TOTAL, int(match[1]))
            out[name] = states(net, schedule, chain, z_lr, inputs["start_noise"], noises)
    for count, eta in golden.config["ddim"]:
        out |= two_axes(schedule, count, eta, golden, out["start"])
    return out


def states(net, schedule, chain, z_lr, start_noise, noises):
    """The state after every step of the ancestral chain that begins with noised LR."""
    drawn = dict(zip(chain, (start_noise, *noises), strict=False))
    seen = []

    def predict(z, t, mask):
        raw = net.raw(z, t - 1, z_lr)
        return predict_z0(net.prediction, raw, z, schedule.signal(t), schedule.sigma(t))

    masked_sample(
        predict, ddpm_step, schedule, chain, dense(z_lr), z_lr,
        drawn.__getitem__, start="lr", on_step=seen.append,
    )  # fmt: skip
    return torch.stack([record.z_s for record in seen])


def two_axes(schedule, count, eta, golden, x):
    """DDIM as published: the networks are told one time and the tables another, which ends at 1.

    ``ddim_step`` goes along the tables' times; the last step goes from 1 to 1 and changes nothing.
    """
    told = [t - 1 for t in openai_timesteps(TOTAL, count)[:-1]]
    table = list(range(0, TOTAL, TOTAL // count))[:count][::-1]
    times = [index + 1 for index in table]
    pairs = [*itertools.pairwise(times), (times[-1], 1)]
    name, full = f"ddim{count}", schedule.alpha_bar
    now, then = (full[list(side)].flip(0) for side in zip(*pairs, strict=True))
    sigma = eta * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
    out = {
        f"{name}.timesteps_net": torch.tensor(told[::-1]),
        f"{name}.timesteps_table": torch.tensor(table[::-1]),
        f"{name}.eta{eta:g}.ddim_alphas": now.float(),
        f"{name}.eta{eta:g}.ddim_alphas_prev": then.float(),
        f"{name}.eta{eta:g}.ddim_sigmas": sigma.float(),
        f"{name}.eta{eta:g}.ddim_sqrt_one_minus_alphas": (1 - now).sqrt().float(),
    }
    for prediction in ("eps", "v"):
        net, z, seen = Analytic(prediction), x, []
        for t, (at, to), noise in zip(told, pairs, golden.inputs["noises"], strict=False):
            raw = net.raw(z, t, golden.inputs["z_lr"])
            z_0 = predict_z0(prediction, raw, z, schedule.signal(at), schedule.sigma(at))
            z = ddim_step(schedule, z, z_0, at, to, noise, eta=eta)
            seen.append(z)
        out[f"{name}.eta{eta:g}.{prediction}.x"] = torch.stack(seen)
    return out


@dataclass
class Demo(nn.Module):
    """The reference's stand-in for a network in its demonstration of windows."""

    keeps: float = 0.0

    def __post_init__(self):
        super().__init__()

    def encode(self, z_lr):
        return Condition(z_lr)

    def predict(self, z_t, t, condition, mask):
        ramps = 0.01 * z_t.cumsum(-1) + 0.02 * z_t.cumsum(-2)
        return self.keeps * z_t + ramps + 0.5 * condition.z_lr


def tiles(golden):
    inputs, config, out = golden.inputs, golden.config, {}
    for size in config["weight_sizes"]:
        out[f"weights{size}_f64"] = gaussian_weights(size, size)
    for k, (height, width, size, overlap) in enumerate(config["cases"]):
        windows = sliding_windows(height, width, size, size - overlap)
        edges = [(w.top, w.bottom, w.left, w.right) for w in windows]
        out[f"windows{k}"] = torch.tensor(edges)
        x = inputs[f"x{k}"]
        denoise = windowed(Demo(), inputs[f"z{k}"], [1, 0], size, size - overlap)
        out[f"average{k}"] = denoise(x, 1, everywhere(x))
    for k, (length, size, stride) in enumerate(config["pixel_cases"]):
        windows = sliding_windows(size, length, size, stride)
        out[f"starts{k}"] = torch.tensor([window.left for window in windows])
    image = inputs["image"]
    denoise = windowed(Demo(1.0), torch.zeros_like(image), [1, 0], *config["pixel_tile"][2:])
    return out | {"pixel.average": denoise(image, 1, everywhere(image))}


# ------------------------------------------------------------------------- from picture to picture


def pipeline(golden):
    """The reference's two scripts; the tiny networks' shapes are those of the files it names."""
    out = {}
    for name, case in golden.config["cases"].items():
        inputs = {
            k.removeprefix(f"{name}."): v
            for k, v in golden.inputs.items()
            if k.startswith(f"{name}.")
        }
        square = case["script"] == "square"
        prepare = squared if square else on_canvas
        seen, height, width = prepare(as_floats(inputs["image"]), case)
        vae = load_wrapped_vae(part(golden, "vae."), "golden")
        net = stablesr_net(golden, TINY, case["parameterization"])
        guidance = Guidance({"text": golden.inputs["c_txt"]})
        z_lr = sampled(moments_of(vae, seen), inputs["posterior_noise"])
        size = 0 if square else case["input_size"] // 8
        stride = size - case.get("tile_overlap", 0)
        chain = openai_timesteps(TOTAL, case["steps"])
        drawn = dict(zip(chain, (inputs["start_noise"], *inputs["step_noises"]), strict=False))
        latent = masked_sample(
            windowed(net, z_lr, chain, size, stride, guidance), ddpm_step, net.schedule, chain,
            dense(z_lr), z_lr, drawn.__getitem__,
            start="noise" if square else "lr",
        )  # fmt: skip
        decoded = vae.decode(latent / SCALING, vae.features(seen), case["dec_w"])
        image = COLOR_FIXES[case["colour"]](decoded, seen)[..., :height, :width]
        out |= {f"{name}.z_lr": z_lr, f"{name}.latent": latent, f"{name}.decoded": decoded}
        out[f"{name}.image"] = truncated(image)[0].permute(1, 2, 0)
    return out


#: Numbers of heads in the networks that the pipeline's file names, and their widths.
TINY = {
    "unet_cfg": {"num_head_channels": 16, "model_channels": 32, "channel_mult": [1, 2]},
    "structcond_cfg": {"num_heads": 4},
}


def as_floats(image):
    return image.permute(2, 0, 1)[None].float() / 255 * 2 - 1


def squared(image, case):
    """Enlarged to the working size on its short side, the middle cut out."""
    size = case["input_size"]
    height, width = image.shape[-2:]
    larger = size / min(height, width)
    to = (int(height * larger), int(width * larger))
    image = F.interpolate(image, to, mode="bilinear").clamp(-1, 1)
    top, left = (round((side - size) / 2) for side in image.shape[-2:])
    return image[..., top : top + size, left : left + size], size, size


def on_canvas(image, case):
    """Enlarged, then continued to whole 32s: where one side is not, both sides are."""
    height, width = (side * case["upscale"] for side in image.shape[-2:])
    image = F.interpolate(image, (height, width), mode="bicubic").clamp(-1, 1)
    bottom, right = 32 - height % 32, 32 - width % 32
    return F.pad(image, (0, right, 0, bottom), mode="reflect"), height, width


KINDS = {
    "stablesr_cfw": cfw,
    "stablesr_colour": colour,
    "stablesr_fuse_block": fuse,
    "stablesr_pipeline": pipeline,
    "stablesr_resblock": resblock,
    "stablesr_sampler": sampler,
    "stablesr_spade": spade,
    "stablesr_tiles": tiles,
    "stablesr_time_aware_encoder": encoder,
    "stablesr_unet": unet,
}
