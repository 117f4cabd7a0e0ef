"""A StableSR of a few hundred thousand random weights, as files in both published forms."""

import tiny_diffbir
import torch
from tiny_diffbir import TEXT, VAE, named, random_

from yoda_cli.models.nets import stablesr as nets
from yoda_cli.models.nets.text import TextTower
from yoda_cli.weights.structures import SCHEDULE_BUFFERS

UNET = tiny_diffbir.UNET
ENCODER = nets.EncoderConfig(4, (32, 64), 1, (True, False), 32)
WRAPPED = nets.WrapConfig(VAE, (1, 2), 1, 8)

FILES = ("tiny_stablesr.ckpt", "tiny_sd21.ckpt", "tiny_modules.ckpt", "tiny_cfw.ckpt")
FILE = """
[files."{name}"]
format = "pth"
manual = "made by the test"
licence = "none"
noncommercial = true
source = "here"
"""
MODEL = """
[models.{name}]
summary = "random weights"
files = {{ {files} }}
backbone = "stablesr"
scale = 4
licence = "none"
noncommercial = true
source = "here"
trained_with_yoda = false
attention = "edge"
lower_bound = 0.3
steps = 2
sampler = "ddpm"

[models.{name}.settings]
prediction = "{prediction}"
color = "adain"
start = "lr"
fidelity = 0.5
head_dim = 16
text_heads = 4
shortest = 64
window = 8
whole = 8
"""


def make_files(folder, seed=0):
    """The whole checkpoint; Stable Diffusion and the modules; the decoder's file."""
    torch.manual_seed(seed)
    unet = random_(nets.ModulatedUNet(UNET, ENCODER.out_channels))
    encoder, vae = random_(nets.TimeAwareEncoder(ENCODER)), random_(nets.WrappedVAE(WRAPPED))
    whole = named(unet, lambda key: nets.modulated_unet_name(key, UNET))
    own = {key: value for key, value in whole.items() if ".spade." in key}
    cfw = named(vae, lambda key: nets.wrapped_vae_name(key, WRAPPED))
    plain = {key: value for key, value in cfw.items() if "fusion_layer" not in key}
    text = named(random_(TextTower(TEXT)), lambda key: key)
    encoded = named(encoder, nets.encoder_name)
    around = prefixed("first_stage_model.", plain) | prefixed("cond_stage_model.model.", text)
    modules = prefixed("model.diffusion_model.", own) | prefixed("structcond_stage_model.", encoded)
    base = prefixed("model.diffusion_model.", {k: v for k, v in whole.items() if k not in own})
    buffers = dict.fromkeys(SCHEDULE_BUFFERS, torch.zeros(3))
    lightning = {"global_step": 117, "state_dict": {**base, **around, **modules, **buffers}}
    torch.save(lightning, folder / "tiny_stablesr.ckpt")
    torch.save({"state_dict": {**base, **around}}, folder / "tiny_sd21.ckpt")
    torch.save(modules, folder / "tiny_modules.ckpt")
    training = {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.bias": torch.zeros(4)}
    torch.save({"state_dict": {**cfw, **training}}, folder / "tiny_cfw.ckpt")


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def write_registry(path, prediction="eps"):
    """A model of each form: ``tiny`` and ``parts``."""
    forms = {
        "tiny": {"diffusion": "tiny_stablesr.ckpt", "decoder": "tiny_cfw.ckpt"},
        "parts": {
            "diffusion": "tiny_sd21.ckpt",
            "modules": "tiny_modules.ckpt",
            "decoder": "tiny_cfw.ckpt",
        },
    }
    text = "".join(FILE.format(name=name) for name in FILES)
    for name, files in forms.items():
        listed = ", ".join(f'{role} = "{file}"' for role, file in files.items())
        text += MODEL.format(name=name, files=listed, prediction=prediction)
    path.write_text(text)
    return path
