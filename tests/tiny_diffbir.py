"""A DiffBIR of a few hundred thousand random weights, as files in the published layout."""

import torch

from yoda_cli.models.nets import ldm
from yoda_cli.models.nets.rrdb import RRDBNet
from yoda_cli.models.nets.text import TextConfig, TextTower

UNET = ldm.UNetConfig(4, (32, 64), 1, (True, False), 16, 16)
CONTROL = ldm.UNetConfig(8, (32, 64), 1, (True, False), 16, 16)
VAE = ldm.VAEConfig((32, 32, 32, 32), 1, 4)
TEXT = TextConfig(49408, 16, 2, 4)

REGISTRY = """
[files."tiny_control.pth"]
format = "pth"
manual = "made by the test"
licence = "none"
source = "here"

[files."tiny_sd.ckpt"]
format = "pth"
manual = "made by the test"
licence = "none"
source = "here"

[files."tiny_stage1.pth"]
format = "pth"
manual = "made by the test"
licence = "none"
source = "here"

[models.tiny]
summary = "random weights"
files = {{ controlnet = "tiny_control.pth", diffusion = "tiny_sd.ckpt", stage1 = "tiny_stage1.pth" }}
backbone = "diffbir"
scale = 4
licence = "none"
source = "here"
trained_with_yoda = false
attention = "edge"
lower_bound = 0.3
steps = 2
sampler = "{sampler}"

[models.tiny.settings]
prediction = "{prediction}"
chain = "{chain}"
cfg = {cfg}
negative_prompt = "blurry"
head_dim = 16
text_heads = 4
shortest = 64
"""  # noqa: E501


def named(net, name):
    return {name(key): value for key, value in net.state_dict().items()}


def random_(net, scale=1.0):
    """Small random weights everywhere, zero-initialised layers too."""
    for parameter in net.parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn_like(parameter) * scale / parameter[0].numel() ** 0.5)
    return net


def make_files(folder, seed=0):
    """ControlNet, Stable Diffusion and stage one, in ``folder``."""
    torch.manual_seed(seed)
    unet, control = random_(ldm.make_unet(UNET)), random_(ldm.ControlNet(CONTROL))
    vae, text = random_(ldm.make_vae(VAE)), random_(TextTower(TEXT))
    torch.save(named(control, lambda k: ldm.unet_name(k, CONTROL)), folder / "tiny_control.pth")
    whole = {
        "model.diffusion_model.": named(unet, lambda k: ldm.unet_name(k, UNET)),
        "first_stage_model.": named(vae, lambda k: ldm.vae_name(k, VAE)),
        "cond_stage_model.model.": named(text, lambda k: k),
    }
    state = {prefix + k: v for prefix, part in whole.items() for k, v in part.items()}
    torch.save({"state_dict": state}, folder / "tiny_sd.ckpt")
    restorer = random_(RRDBNet(num_feat=8, num_block=1, growth=4, scale=4), 0.1)
    torch.save(restorer.state_dict(), folder / "tiny_stage1.pth")


def write_registry(
    path, *, prediction="eps", chain="openai", cfg=1.0, sampler="ddpm"
):  # fmt: skip
    path.write_text(REGISTRY.format(prediction=prediction, chain=chain, cfg=cfg, sampler=sampler))
    return path
