"""Reference vectors: one function per kind, from a golden's weights and inputs to its outputs.

Everything is computed by the project's own code and driven by the file's metadata. A function
returns every ``out.*`` tensor of the file, by name.
"""

import json
from dataclasses import dataclass
from unittest import mock

import golden_addsr
import golden_diffbir
import golden_stablesr
import torch
from safetensors import safe_open

from yoda_cli.diffusion.schedule import NoiseSchedule, make_schedule, q_sample
from yoda_cli.diffusion.steps import ddpm_step
from yoda_cli.images.resize import imresize
from yoda_cli.models.base import Condition
from yoda_cli.models.checkpoint import fill
from yoda_cli.models.nets.sr3 import SR3UNet
from yoda_cli.models.sr3 import SR3, SR3Config
from yoda_cli.models.srdiff import SRDiff, SRDiffConfig, infer_config


@dataclass(frozen=True)
class Golden:
    config: dict
    state: dict
    inputs: dict
    outputs: dict

    @property
    def kind(self):
        return self.config["kind"]


def load_golden(path):
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def part(prefix):
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    # Float weights are stored as fp16 that hold the exact values.
    state = {k: v.float() if v.dtype == torch.float16 else v for k, v in part("state.").items()}
    others = {config.get("spade_weights"), *config.get("weights", {}).values()} - {None}
    for other in sorted(others):  # some weights are shared by several files
        state |= load_golden(path.with_name(f"{other}{path.suffix}")).state
    return Golden(config, state, part("in."), part("out."))


def schedule_buffers(schedule: NoiseSchedule):
    """The reference's registered buffers, as functions of our schedule, 0-based and fp32."""
    beta, full = schedule.beta[1:], schedule.alpha_bar
    ab, before = full[1:], full[:-1]
    variance = beta * (1 - before) / (1 - ab)
    values = {
        "betas": beta,
        "alphas_cumprod": ab,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": ab.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - ab).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - ab).log(),
        "sqrt_recip_alphas_cumprod": (1 / ab).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / ab - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": beta * before.sqrt() / (1 - ab),
        "posterior_mean_coef2": (1 - before) * (1 - beta).sqrt() / (1 - ab),
    }
    return {name: value.float() for name, value in values.items()}


def sr3_schedule(config):
    return make_schedule(
        config["schedule"],
        config["n_timestep"],
        beta_start=config.get("linear_start", 1e-4),
        beta_end=config.get("linear_end", 2e-2),
        cosine_s=config.get("cosine_s", 0.008),
    )


def sr3_schedules(golden):
    out = {}
    for name, config in golden.config["schedules"].items():
        schedule = sr3_schedule(config)
        for key, value in schedule_buffers(schedule).items():
            out[f"{name}.{key}"] = value
        out[f"{name}.sqrt_alphas_cumprod_prev_f64"] = schedule.alpha_bar.sqrt()
    return out


def _attn_levels(config):
    levels = range(len(config["channel_mults"]))
    return tuple(i for i in levels if config["image_size"] >> i in config["attn_res"])


def _sr3_unet_settings(config):
    return {
        "inner_channel": config["inner_channel"],
        "channel_mults": tuple(config["channel_mults"]),
        "res_blocks": config["res_blocks"],
        "attn_levels": _attn_levels(config),
        "norm_groups": config.get("norm_groups") or 32,
        "dropout": config.get("dropout") or 0.0,
    }


def sr3_unet(golden):
    config = golden.config["config"]
    net = SR3UNet(
        in_channel=config["in_channel"],
        out_channel=config["out_channel"],
        **_sr3_unet_settings(config),
    )
    fill(net, golden.state, "golden")
    return {"eps": net(golden.inputs["x"], golden.inputs["noise_level"])}


def sr3_diffusion(golden):
    chain, inputs = golden.config["schedule"], golden.inputs
    net = SR3(
        SR3Config(
            **_sr3_unet_settings(golden.config["config"]),
            schedule=chain["schedule"],
            num_steps=chain["n_timestep"],
            beta_start=chain.get("linear_start", 1e-4),
            beta_end=chain.get("linear_end", 2e-2),
        )
    )
    fill(net, golden.state, "golden")
    schedule = net.schedule
    buffers = schedule_buffers(schedule)
    out = {f"buffer.{name}": value for name, value in buffers.items()}
    out["sqrt_alphas_cumprod_prev_f64"] = schedule.alpha_bar.sqrt()
    condition = Condition(inputs["cond_sr"], {"seen": inputs["cond_sr"]})
    for index in golden.config["timesteps"]:
        t, z_t = index + 1, inputs[f"t{index}.x_t"]
        mask = torch.ones_like(z_t[:, :1], dtype=torch.bool)
        batch = torch.full((z_t.shape[0],), t)
        z_0 = net.predict(z_t, t, condition, mask)
        out[f"t{index}.eps"] = net.denoise(z_t, batch, condition, mask)
        out[f"t{index}.mean"] = ddpm_step(schedule, z_t, z_0, t, t - 1, torch.zeros_like(z_t))
        noise = inputs[f"t{index}.noise"]
        out[f"t{index}.x_prev"] = ddpm_step(schedule, z_t, z_0, t, t - 1, noise)
        out[f"t{index}.noise_level"], _ = schedule.levels(batch.view(-1, 1))
        out[f"t{index}.log_variance"] = buffers["posterior_log_variance_clipped"][index].view(1)
    # SR3 trains on continuous levels: the marginal at a given √γ, one per sample.
    level, noise = inputs["q_level"], inputs["q_noise"]
    noisy = level * inputs["q_x0"] + (1 - level**2).sqrt() * noise
    out["q_sample"] = noisy
    eps = net.denoise_fn(torch.cat([inputs["cond_sr"], noisy], 1), level.view(-1, 1))
    out["train_l1_mean"] = (eps - noise).abs().mean().view(1)
    return out


def _srdiff(golden):
    hparams = golden.config["hparams"]
    inferred = infer_config(golden.state)
    told = SRDiffConfig(
        scale=hparams["sr_scale"],
        dim=hparams["hidden_size"],
        dim_mults=tuple(int(m) for m in hparams["unet_dim_mults"].split("|")),
        encoder_channels=hparams["rrdb_num_feat"],
        encoder_blocks=hparams["rrdb_num_block"],
        encoder_growth=golden.state["rrdb.RRDB_trunk.0.RDB1.conv1.weight"].shape[0],
        num_steps=hparams["timesteps"],
        schedule=hparams["beta_schedule"],
        beta_start=1e-4,
        beta_end=hparams.get("beta_end", 0.02),
        cosine_s=hparams.get("beta_s", 0.008),
        residual_scale=hparams["res_rescale"],
    )
    shapes = ("scale", "dim", "dim_mults", "encoder_channels", "encoder_blocks", "encoder_growth")
    for name in shapes:
        assert getattr(inferred, name) == getattr(told, name), f"inferred {name} is wrong"
    net = SRDiff(told)
    fill(net, golden.state, "golden")
    return net


def _given(net, img_lr, img_lr_up):
    """The condition of an LR image, with the enlarged image that the golden gives."""
    condition = net.encode((img_lr + 1) / 2)
    return Condition(condition.z_lr, {**condition.maps, "anchor": (img_lr_up + 1) / 2})


def _to_uint8(image):
    return image.round().clamp(0, 255).to(torch.uint8)


def srdiff(golden):
    net, inputs, out = _srdiff(golden), golden.inputs, {}
    schedule, scale = net.schedule, net.geometry.scale
    for name, value in schedule_buffers(schedule).items():
        out[f"buffer.{name}"] = value
    hr8, lr8 = (inputs[f"{k}_uint8_nhwc"].permute(0, 3, 1, 2) for k in ("hr", "lr"))
    out["imresize.lr_uint8_nhwc"] = imresize(hr8, scale=1 / scale).permute(0, 2, 3, 1)
    up = imresize(lr8.double() / 256, scale=scale)
    out["imresize.lr_up_nhwc_f64"] = up.permute(0, 2, 3, 1)
    out["dataset.img_lr_up"] = net.encode(lr8.float() / 255).maps["anchor"] * 2 - 1
    features = net.rrdb.features(inputs["img_lr"])
    out["rrdb.out"], _ = net.rrdb(inputs["img_lr"])
    out["rrdb.conv_last_before_clamp"] = net.rrdb.enlarge(features[-1])
    out["rrdb.fea_count"] = torch.tensor(len(features))
    for index in range(2, len(features), 3):
        out[f"rrdb.fea.{index}"] = features[index]
    condition = _given(net, inputs["img_lr"], inputs["img_lr_up"])
    out["unet.cond_proj"] = condition.maps["features"]
    z_0 = net.to_z((inputs["img_hr"] + 1) / 2, condition)
    out["img2res"] = z_0
    out["res2img"] = net.decode(inputs["res2img.in"], condition) * 2 - 1
    for index in golden.config["timesteps"]:
        _srdiff_step(net, index, golden, condition, z_0, out)
    return out


def _srdiff_step(net, index, golden, condition, z_0, out):
    """Where hardly any signal is left, ẑ_0 and the step follow from the reference's eps.

    From one's own they carry its rounding, 2,029-fold (1/√ᾱ) at t = 100, and each CPU rounds in
    its way. eps is compared for itself at every step.
    """
    inputs = golden.inputs
    t, z_t, noise = index + 1, inputs[f"t{index}.x_t"], inputs[f"t{index}.noise"]
    mask = torch.ones_like(z_t[:, :1], dtype=torch.bool)
    batch = torch.full((z_t.shape[0],), t)
    predicted = net.predict(z_t, t, condition, mask)
    if net.schedule.signal(t) < 0.01:
        with mock.patch.object(net, "denoise", return_value=golden.outputs[f"t{index}.eps"]):
            predicted = net.predict(z_t, t, condition, mask)
    noisy = q_sample(net.schedule, z_0, t, noise)
    out[f"t{index}.eps"] = net.denoise(z_t, batch, condition, mask)
    out[f"t{index}.x0_pred"] = predicted
    out[f"t{index}.x_prev"] = ddpm_step(net.schedule, z_t, predicted, t, t - 1, noise)
    out[f"t{index}.q_sample_of_img2res"] = noisy
    error = net.denoise(noisy, batch, condition, mask) - noise
    out[f"t{index}.train_l1"] = error.abs().mean().view(1)


def srdiff_trace(golden):
    net, inputs = _srdiff(golden), golden.inputs
    schedule = net.schedule
    out = {f"buffer.{name}": value for name, value in schedule_buffers(schedule).items()}
    out["rrdb_out"], _ = net.rrdb(inputs["img_lr"])
    condition = _given(net, inputs["img_lr"], inputs["img_lr_up"])
    z, states, estimates = inputs["x_T"], [], []
    for step, noise in enumerate(inputs["noises"]):
        t = schedule.num_steps - step
        z_0 = net.predict(z, t, condition, torch.ones_like(z[:, :1], dtype=torch.bool))
        z = ddpm_step(schedule, z, z_0, t, t - 1, noise)
        states.append(net.decode(z, condition) * 2 - 1)
        estimates.append(net.decode(z_0, condition) * 2 - 1)
    out["x_after_each_step"] = torch.stack(states)
    out["x0_after_each_step"] = torch.stack(estimates)
    out["sr"] = states[-1]
    return out


#: Kinds that are implemented; a file of another kind is reported as skipped, by name.
def dino_vit(golden):
    from yoda_cli.attention.dino import DinoAttention

    config, x = golden.config, golden.inputs["x"]
    net = DinoAttention(patch=config["patch"], dim=config["embed_dim"], depth=config["depth"],
                        heads=config["heads"], size=config["img_size"]).eval()  # fmt: skip
    net.net.load_state_dict(golden.state)
    tokens = net.tokens(x)
    last = net.last_attention(tokens, whole=True)
    whole = tokens
    for block in net.net.blocks:
        whole = block(whole)
    return {
        "tokens_in": tokens,
        "pos_embed_interpolated": net.position_embedding(*(n // net.patch for n in x.shape[-2:])),
        "last_selfattention": last,
        "cls_attention": net(x),
        "cls_feature": net.net.norm(whole)[:, 0],
    }


def agf_resnet(golden):
    from yoda_cli.attention import agf

    fc = golden.state["fc.weight"], golden.state["fc.bias"]
    trace = agf.forward(golden.state, golden.inputs["x"])
    logits = torch.nn.functional.linear(trace.features, *fc)
    ranked = logits[0].topk(6).indices
    maps = agf.relevance_maps(golden.state, trace, ranked, fc)
    out = {f"agf.rank{i}_of_6": maps[i : i + 1] for i in range(6)}
    for index in (0, 3):
        target = torch.tensor([index])
        out[f"agf.class{index}"] = agf.relevance_maps(golden.state, trace, target, fc)
    return {**out, "agf.top": maps[:1], "logits": logits}


KINDS = {
    **golden_addsr.KINDS,
    **golden_diffbir.KINDS,
    **golden_stablesr.KINDS,
    "agf_resnet_bottleneck": agf_resnet,
    "dino_vit": dino_vit,
    "sr3_schedules": sr3_schedules,
    "sr3_unet_forward": sr3_unet,
    "sr3_diffusion": sr3_diffusion,
    "srdiff": srdiff,
    "srdiff_full_sampling_trace": srdiff_trace,
}


@torch.no_grad()
def compute(golden):
    """The outputs of a golden by the project's code."""
    return KINDS[golden.kind](golden)


def compare(golden, tolerances):
    """The outputs that do not agree within their tolerance, as lines; empty when all do."""
    return differences(golden.outputs, compute(golden), tolerances)


def differences(outputs, computed, tolerances):
    """One line for each of ``outputs`` that was not computed or is off by more than allowed."""
    wrong = []
    for name, expected in outputs.items():
        if name not in computed:
            wrong.append(f"{name}: not computed")
            continue
        value, rule = computed[name], tolerances[f"out.{name}"]
        if value.shape != expected.shape:
            wrong.append(f"{name}: shape {tuple(value.shape)}, expected {tuple(expected.shape)}")
            continue
        value, expected = value.double(), expected.double()
        atol = 0.0 if rule.get("exact") else rule.get("atol", 0.0)
        excess = (value - expected).abs() - rule.get("rtol", 0.0) * expected.abs()
        if not bool(((excess <= atol) | (value == expected)).all()):
            wrong.append(f"{name}: off by {excess.max():.3g}, allowed {atol:.3g}")
    return wrong
