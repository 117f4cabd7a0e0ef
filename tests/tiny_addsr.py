"""An AddSR of some hundred thousand random weights, as files in the published layout."""

import torch
from safetensors.torch import save_file
from tiny_diffbir import TEXT, VAE, named, random_

from yoda_cli.models.nets import ldm, seesr
from yoda_cli.models.nets.text import TextTower

UNET = seesr.SeeSRConfig(4, (32, 64), 1, (True, False), 16, 12, (2, 4))
CONTROL = seesr.SeeSRConfig(4, (32, 64), 1, (True, False), 16, 12, (2, 4), stem=(8, 8, 8, 8))
DAPE = seesr.DAPEConfig(16, 4, 2, 8, (2, 2), (2, 2), 12)
NAMES = {
    "unet": "tiny_unet.safetensors",
    "controlnet": "tiny_control.safetensors",
    "ram": "tiny_ram.pth",
    "dape": "tiny_dape.pth",
    "diffusion": "tiny_sd2.ckpt",
}
FILE = """
[files."{name}"]
format = "{format}"
manual = "made by the test"
licence = "none"
source = "here"
"""
MODEL = """
[models.tiny]
summary = "random weights"
files = {{ {files} }}
backbone = "addsr"
scale = 4
licence = "none"
source = "here"
trained_with_yoda = false
attention = "edge"
lower_bound = 0.3
steps = 4
sampler = "renoise"

[models.tiny.settings]
chain = "four"
color = "adain"
start = "lr"
refinement = {refinement}
head_dim = 16
text_heads = 4
shortest = 64
"""


def make_files(folder, seed=0):
    """U-Net, ControlNet, RAM, what adapts it, Stable Diffusion 2, in ``folder``."""
    torch.manual_seed(seed)
    unet, control = random_(seesr.make_unet(UNET)), random_(seesr.make_control(CONTROL))
    made = (seesr.DAPE(DAPE), ldm.make_vae(VAE), TextTower(TEXT))
    dape, vae, text = (random_(net) for net in made)
    for role, net in (("unet", unet), ("controlnet", control)):
        save_file(named(net, seesr.seesr_name), folder / NAMES[role])
    ram = named(dape, seesr.dape_name)
    lora = {}
    for key, weight in list(ram.items()):
        if key.endswith("qkv.weight"):
            place, width = key.removesuffix(".weight"), weight.shape[1]
            lora[f"{place}.lora_A"] = torch.randn(16, width) / width**0.5
            lora[f"{place}.lora_B"] = torch.randn(2 * width, 8)
            ram[f"{place.removesuffix('qkv')}relative_position_index"] = torch.zeros(4, 4)
    torch.save({"model": {**ram, "text_decoder.bert.x": torch.zeros(1)}}, folder / NAMES["ram"])
    torch.save({**lora, "tag_encoder.encoder.x.lora_A": torch.zeros(8, 2)}, folder / NAMES["dape"])
    whole = {
        "first_stage_model.": named(vae, lambda key: ldm.vae_name(key, VAE)),
        "cond_stage_model.model.": named(text, lambda key: key),
    }
    state = {prefix + k: v for prefix, part in whole.items() for k, v in part.items()}
    torch.save({"state_dict": state}, folder / NAMES["diffusion"])


def write_registry(path, refinement=0.4):
    """A registry of these files and of the model ``tiny``."""
    files = "".join(
        FILE.format(name=name, format="safetensors" if name.endswith("s") else "pth")
        for name in NAMES.values()
    )
    roles = ", ".join(f'{role} = "{name}"' for role, name in NAMES.items())
    path.write_text(files + MODEL.format(files=roles, refinement=refinement))
    return path
