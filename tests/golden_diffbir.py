"""DiffBIR's reference vectors: networks, samplers, colour and windows, by the project's code."""

import math
import re
from dataclasses import dataclass

import torch
from torch import nn

from yoda_cli.config import SampleDefaults
from yoda_cli.diffusion.schedule import predict_z0
from yoda_cli.diffusion.steps import ddim_step, ddpm_step
from yoda_cli.diffusion.timesteps import leading_timesteps, openai_timesteps, trailing_timesteps
from yoda_cli.images.color import adain_fix, low_band, wavelet_fix
from yoda_cli.models.base import Condition, Guidance
from yoda_cli.models.latent.autoencoder import Autoencoder, load_vae
from yoda_cli.models.latent.controlled import ControlledUNet, diffbir_design
from yoda_cli.models.latent.denoising import make_latent_schedule
from yoda_cli.models.latent.restorers import restorer_of
from yoda_cli.models.latent.text import load_text
from yoda_cli.models.model import Model
from yoda_cli.models.nets import ldm
from yoda_cli.tiling.overlap import gaussian_weights, sliding_windows
from yoda_cli.tiling.plan import window_plan
from yoda_cli.upscaling.denoisers import WindowedDenoiser

CPU = torch.device("cpu")


def part(golden, prefix):
    return {
        k.removeprefix(prefix): v for k, v in golden.state.items() if k.startswith(prefix)
    }  # fmt: skip


def diffbir_net(golden, prediction="eps"):
    """The golden's U-Net and ControlNet; head dimensions are not in the tensors."""
    config = golden.config["config"]["unet_cfg"]
    head = config["num_head_channels"]
    unet, control = part(golden, "unet."), part(golden, "controlnet.")
    inferred = ldm.infer_unet(unet, head)
    told = tuple(config["model_channels"] * m for m in config["channel_mult"])
    assert inferred.channels == told
    assert inferred.blocks == config["num_res_blocks"]
    assert inferred.context == config["context_dim"]
    net = ControlledUNet(diffbir_design(inferred, ldm.infer_unet(control, head)), prediction)
    net.fill("unet", unet, "golden")
    net.fill("control", control, "golden")
    return net


def everywhere(z):
    return torch.ones_like(z[:, :1], dtype=torch.bool)


def controlldm(golden):
    inputs, out = golden.inputs, {}
    x, t, text, hint = (inputs[k] for k in ("x", "t", "c_txt", "c_img"))
    net = diffbir_net(golden)
    for i, control in enumerate(net.control(x, t, text, hint)):
        out[f"control.{i}"] = control
    out["model_output"] = net.run(x, t + 1, {"text": text}, hint)
    out["model_output_strength0.6"] = net.run(x, t + 1, {"text": text}, hint, 0.6)
    out["unet_without_control"] = net.run(x, t + 1, {"text": text}, hint, 0.0)
    for prediction in ("eps", "v"):
        steps(diffbir_net(golden, prediction), golden, out)
    tiled(net, golden, out)
    return out


def guided(net, inputs, cfg, run):
    """``run(x, condition)`` for each sample with its own prompts."""
    results = []
    for b in range(len(inputs["x"])):
        one = {name: inputs[name][b : b + 1] for name in ("x", "c_txt", "c_txt_uncond", "c_img")}
        guidance = Guidance({"text": one["c_txt"]}, {"text": one["c_txt_uncond"]}, cfg)
        condition = Condition(one["c_img"], {"hint": one["c_img"]}, guidance=guidance)
        results.append(run(one["x"], condition))
    return torch.cat(results)


STEP = re.compile(r"(spaced|ddim|edm)(\d+)\.(eps|v)\.[ik](\d+)\.cfg([\d.]+)\.(x_prev|denoised)")


def steps(net, golden, out):
    """Single steps of the three samplers with classifier-free guidance, as the outputs' names say.

    The reference's DDIM ends at index 0, one step short of the clean signal; ours goes on to it.
    """
    inputs, x, noise = golden.inputs, golden.inputs["x"], golden.inputs["noise"]
    for name in golden.outputs:
        match = STEP.fullmatch(name)
        if match is None or match[3] != net.prediction:
            continue
        sampler, count, index, cfg = match[1], int(match[2]), int(match[4]), float(match[5])
        schedule, total = net.schedule, net.schedule.num_steps
        if sampler == "edm":
            t = trailing_timesteps(total, count)[index]
            out[name] = first_edm(net, inputs, cfg) if index == 0 else estimate(net, inputs, t, cfg)
            continue
        kind = openai_timesteps if sampler == "spaced" else leading_timesteps
        chain = kind(total, count)[::-1]
        t, s = chain[index + 1], chain[index]
        z_0 = estimate(net, inputs, t, cfg)
        if sampler == "spaced":
            drawn = noise if s > 0 else torch.zeros_like(noise)
            out[name] = ddpm_step(schedule, x, z_0, t, s, drawn)
        else:
            out[name] = ddim_step(schedule, x, z_0, t, max(s, 1), torch.zeros_like(x))


def estimate(net, inputs, t, cfg):
    return guided(net, inputs, cfg, lambda z, c: net.predict(z, t, c, everywhere(z)))


def first_edm(net, inputs, cfg):
    """The reference puts ᾱ = 1e-8 where the chain begins."""

    def first(z, condition):
        raw = net.denoise(z, torch.tensor([net.schedule.num_steps]), condition, everywhere(z))
        return predict_z0(net.prediction, raw, z, 1e-4, math.sqrt(1 - 1e-8))

    return guided(net, inputs, cfg, first)


def tiled(net, golden, out):
    """ε̂ averaged over windows: the estimates are, and the two differ by a fixed linear map."""
    size, t = golden.config["tile_size"], golden.config["tiled_t"] + 1
    x, hint = golden.inputs["tiled.x"], golden.inputs["tiled.c_img"]
    text = golden.inputs["c_txt"][:1]
    model = Model("golden", net, SampleDefaults(), CPU, torch.float32)
    ones, stride = torch.ones_like(x[:, :1]), golden.config["tile_stride"]
    plan = window_plan(ones, [t, 0], 1.0, 1000, size, stride, skip=True)
    condition = Condition(hint, {"hint": hint}, guidance=Guidance({"text": text}))
    z_0 = WindowedDenoiser(model, condition, plan)(x, t, everywhere(x))
    signal, sigma = net.schedule.signal(t), net.schedule.sigma(t)
    out["tiled.model_output"] = (x - signal * z_0) / sigma
    out["untiled.model_output"] = net.run(x, torch.tensor([t]), {"text": text}, hint)


def vae(golden):
    net = load_vae(part(golden, "vae."), "golden")
    coder = Autoencoder(net, CPU)
    image, z = golden.inputs["image"], golden.inputs["z"]
    return {
        "moments": net.quant_conv(net.encoder(image)),
        "mode_scaled": coder.encode(image),
        "decoded": coder.decode(z),
    }


def clip_text(golden):
    heads = golden.config["config"]["text_cfg"]["heads"]
    tower = load_text(part(golden, "clip."), "golden", heads)
    return {"c_txt": tower(golden.inputs["tokens"])}


def stage_one(golden):
    restorer = restorer_of(golden.state, "golden", CPU)
    return {"image": restorer.run(golden.inputs["image"])}


@dataclass
class Demo(nn.Module):
    """The reference's stand-in for a network in its demonstration of windows."""

    def __post_init__(self):
        super().__init__()

    def predict(self, z_t, t, condition, mask):
        return 0.01 * z_t.cumsum(-1) + 0.02 * z_t.cumsum(-2)


def samplers(golden):
    inputs, out = golden.inputs, {}
    content, style = inputs["content"], inputs["style"]
    out["wavelet.low"] = low_band(content)
    out["wavelet.high"] = content - low_band(content)
    out["wavelet.fixed"] = wavelet_fix(content, style)
    out["adain.fixed"] = adain_fix(content, style)
    size, (height, width) = golden.config["tile"], golden.config["latent_hw"]
    stride = golden.config["stride"]
    windows = sliding_windows(height, width, size, stride)
    out["sliding_windows"] = torch.tensor([(w.top, w.bottom, w.left, w.right) for w in windows])
    out["gaussian_weights_f64"] = gaussian_weights(size, size)
    x = inputs["tiled_fn_demo.x"]
    plan = window_plan(torch.ones(1, 1, height, width), [1, 0], 1.0, 1, size, stride, skip=True)
    model = Model("demo", Demo(), SampleDefaults(), CPU, torch.float32)
    out["tiled_fn_demo"] = WindowedDenoiser(model, Condition(x, {}), plan)(x, 1, everywhere(x))
    for name in golden.outputs:  # the reference looks the scale up by the network's 0-based time
        if match := re.fullmatch(r"rescaled_cfg_scale_for_cfg([\d.]+)_t0_to_999", name):
            rising = Guidance(cfg=float(match[1]), rescale_cfg=True)
            out[name] = torch.tensor([rising.scale(t + 1, 1000) for t in range(1000)])
    for name, prediction in (("eps", "eps"), ("v_zsnr", "v")):
        for count in golden.config["steps"]:
            for key, value in coefficients(make_latent_schedule(prediction), count).items():
                out[f"{name}.{key}"] = value
    return out


def coefficients(schedule, count):
    """The reference's tables, as functions of our schedule and chains; 0-based, fp32."""
    beta, full = schedule.beta[1:], schedule.alpha_bar
    out = {
        "betas_f64": beta,
        "sqrt_alphas_cumprod": full[1:].sqrt().float(),
        "sqrt_one_minus_alphas_cumprod": (1 - full[1:]).sqrt().float(),
    }
    chain = torch.tensor(openai_timesteps(1000, count)).flip(0)
    ab, before = full[chain[1:]], full[chain[:-1]]
    step = 1 - ab / before
    variance = step * (1 - before) / (1 - ab)
    values = {
        "timesteps": (chain[1:] - 1).int(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": torch.cat([variance[1:2], variance[1:]]).log(),
        "posterior_mean_coef1": step * before.sqrt() / (1 - ab),
        "posterior_mean_coef2": (1 - before) * (1 - step).sqrt() / (1 - ab),
        "sqrt_alphas_cumprod": ab.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - ab).sqrt(),
        "sqrt_recip_alphas_cumprod": (1 / ab).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / ab - 1).sqrt(),
    }
    out |= {f"spaced{count}.{k}": v if k == "timesteps" else v.float() for k, v in values.items()}
    chain = torch.tensor(leading_timesteps(1000, count)).flip(0)
    ab, before = full[chain[1:]], full[chain[:-1].clamp(min=1)]
    out |= {
        f"ddim{count}.timesteps": chain[1:] - 1,
        f"ddim{count}.ddim_alphas": ab.float(),
        f"ddim{count}.ddim_alphas_prev": before.float(),
        f"ddim{count}.ddim_sqrt_alphas": ab.sqrt().float(),
        f"ddim{count}.ddim_sigmas": torch.zeros(len(chain) - 1),
        f"ddim{count}.ddim_sqrt_one_minus_alphas": (1 - ab).sqrt().float(),
    }
    chain = torch.tensor(trailing_timesteps(1000, count))
    ab = full[chain].clone()
    ab[0] = 1e-8  # the reference's own, in place of ᾱ_T
    out[f"edm{count}.timesteps"] = (chain - 1).clamp(min=0)
    out[f"edm{count}.sigmas"] = ((1 - ab) / ab).sqrt().float()
    return out


KINDS = {
    "diffbir_controlldm_forward": controlldm,
    "diffbir_vae": vae,
    "diffbir_clip_text": clip_text,
    "diffbir_stage1_bsrnet": stage_one,
    "diffbir_stage1_swinir": stage_one,
    "diffbir_stage1_scunet": stage_one,
    "diffbir_samplers_colour_tiling": samplers,
}
