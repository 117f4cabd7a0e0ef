"""Import: a file is what its tensors say, whichever container it came in."""

import json

import pytest
import torch

from yoda_cli.weights import Cache, load_registry
from yoda_cli.weights.structures import NAMES, SCHEDULE_BUFFERS, structures

IMPORTABLE = {
    "sr3_16_128": "I640000_E37_gen.pth",
    "sr3_64_512": "I830000_E32_gen.pth",
    "srdiff_celeb_x8": "srdiff_celeba_300000.ckpt",
    "srdiff_df2k_x4_nb8": "srdiff_div2k_400000.ckpt",
    "srdiff_df2k_x4_nb17": "srdiff_div2k_400000.ckpt",
    "dino_vit_small8": "dino_deitsmall8_pretrain.pth",
    "dino_vit_small16": "dino_deitsmall16_pretrain.pth",
    "dino_resnet50": "dino_resnet50_pretrain.pth",
    "diffbir_bsrnet": "BSRNet.pth",
    "diffbir_scunet": "scunet_color_real_psnr.pth",
    "stablesr_vae": "vqgan_cfw_00011.ckpt",
    "dape_lora": "DAPE.pth",
    "ram": "ram_swin_large_14m.pth",
    "alexnet": "alexnet-owt-7be5be79.pth",
}
AMBIGUOUS = {
    "seesr_unet": "addsr_unet.safetensors",
    "seesr_controlnet": "addsr_controlnet.safetensors",
    "diffbir_controlnet": "v2.pth",
    "diffbir_swinir": "face_swinir_v1.ckpt",
    "sd21": "v2-1_512-ema-pruned.ckpt",
    "diffbir_full": "general_full_v1.ckpt",
    "stablesr_full": "stablesr_turbo.ckpt",
    "stablesr_modules": "webui_768v_139.ckpt",
}


def weights_of(name, **changed):
    """Tensors of one number each, expanded: the right shapes without their memory."""
    return {
        key: torch.zeros(()).expand(changed.get(key, shape))
        for key, shape in structures()[name].items()
    }


def save(path, state, *, wrapped=False):
    """As published: with the schedule's buffers, in Lightning's wrapper if asked."""
    state = {**state, **dict.fromkeys(SCHEDULE_BUFFERS, torch.zeros(3))}
    torch.save({"state_dict": {"model": state}, "global_step": 1} if wrapped else state, path)
    return path


@pytest.mark.parametrize("structure", IMPORTABLE)
@pytest.mark.parametrize("wrapped", [False, True], ids=["flat", "wrapped"])
def test_every_published_network_is_told_by_its_tensors(yoda, tmp_path, structure, wrapped):
    path = save(tmp_path / "x.pth", weights_of(structure), wrapped=wrapped)
    done = yoda("weights", "import", path, "--cache-dir", tmp_path / "cache")
    assert done.code == 0, done.err
    target = tmp_path / "cache" / "weights" / IMPORTABLE[structure]
    assert done.out == f"{target}\n"
    assert NAMES[structure] in done.err
    assert "pinned SHA-256" in done.err
    assert target.read_bytes() == path.read_bytes()
    has_facts = structure in ("dino_vit_small8", "dino_vit_small16", "alexnet")
    assert ("this is not the published file" in done.err) == has_facts
    assert (
        yoda("weights", "verify", IMPORTABLE[structure], "--cache-dir", tmp_path / "cache").code
        == 0
    )


@pytest.mark.parametrize("structure", AMBIGUOUS)
def test_networks_of_one_shape_are_told_by_name_or_by_the_person(yoda, tmp_path, structure):
    path = save(tmp_path / "x.pth", weights_of(structure))
    cache = ("--cache-dir", tmp_path / "cache")
    done = yoda("weights", "import", path, *cache)
    assert done.code == 2
    assert "say which with --as" in done.err
    assert AMBIGUOUS[structure] in done.err
    done = yoda("weights", "import", path, *cache, "--as", AMBIGUOUS[structure])
    assert done.code == 0, done.err
    named = path.rename(tmp_path / AMBIGUOUS[structure])
    assert yoda("weights", "import", named, *cache).code == 0


def test_an_imported_model_runs_by_its_name(yoda, tmp_path):
    from yoda_cli.models import srdiff

    torch.manual_seed(0)
    net = srdiff.SRDiff(srdiff.SRDIFF_CELEBA)
    path = save(tmp_path / "model_ckpt_steps_300000.ckpt", net.state_dict(), wrapped=True)
    cache = ("--cache-dir", tmp_path / "cache")
    assert yoda("weights", "import", path, *cache).code == 0
    from fakes import save_photo

    save_photo(tmp_path / "in.png", 8, 8)
    done = yoda(
        "upscale", tmp_path / "in.png", "-m", "srdiff-celeba", *cache, "--steps", 2, "--offline"
    )
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'in_srdiff-celeba_x8.png'}\n"


MISFITS = {
    "unconditional": (
        lambda: weights_of("sr3_64_512", **{"denoise_fn.downs.0.weight": (64, 3, 3, 3)}),
        "I830000_E32_gen.pth",
        "unconditional SR3 network .3 input channels, not 6.; I830000_E32_gen.pth must be SR3 64",
    ),
    "another backbone": (
        lambda: weights_of("dino_vit_small8"),
        "sr3-64-512",
        "is DINO ViT-S/8; I830000_E32_gen.pth must be SR3 64 → 512",
    ),
    "a key too few": (
        lambda: {k: v for k, v in weights_of("diffbir_bsrnet").items() if k != "conv_last.bias"},
        None,
        "like BSRNet, but it lacks conv_last.bias",
    ),
    "a key too many": (
        lambda: {**weights_of("dino_vit_small8"), "head.weight": torch.zeros(1)},
        None,
        "like DINO ViT-S/8, but it has the unknown head.weight",
    ),
    "a shape": (
        lambda: weights_of("dino_vit_small8", pos_embed=(1, 50, 384)),
        None,
        "pos_embed is .1, 50, 384., not .1, 785, 384.",
    ),
    "Stable Diffusion 1.5": (
        lambda: {
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight":
                torch.zeros(()).expand(320, 768)
        },
        "v2-1_512-ema-pruned.ckpt",
        "context width 768 .1.x., not 2.1",
    ),
    "an integer-time network": (
        lambda: {"denoise_fn.time_mlp.1.weight": torch.zeros(1)},
        None,
        "a DDPM network of the SR3 code",
    ),
    "another size": (
        lambda: {"denoise_fn.cond_proj.weight": torch.zeros(1)},
        "srdiff-df2k",
        "an SRDiff network of another size",
    ),
    "the decoder as the whole model": (
        lambda: weights_of("stablesr_vae"),
        "stablesr_000117.ckpt",
        "is StableSR's VAE with feature wrapping; stablesr_000117.ckpt must be StableSR in one",
    ),
    "the whole model as modules": (
        lambda: weights_of("stablesr_full"),
        "webui_768v_139.ckpt",
        "is StableSR in one file; webui_768v_139.ckpt must be StableSR's modules without",
    ),
    "Stable Diffusion as the whole model": (
        lambda: weights_of("sd21"),
        "stablesr_turbo.ckpt",
        "is Stable Diffusion 2.1; stablesr_turbo.ckpt must be .*: it lacks model.diffusion_model",
    ),
    "something else": (lambda: {"a": torch.zeros(1)}, None, "unknown .1 tensors, the first is a"),
    "a part": (lambda: weights_of("diffbir_vae"), None, "the VAE of Stable Diffusion 2.1 alone"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_a_file_that_does_not_fit_is_told_what_it_is(yoda, tmp_path, name):
    make, slot, message = MISFITS[name]
    path = save(tmp_path / "x.ckpt", make())
    where = ("--as", slot) if slot else ()
    done = yoda("weights", "import", path, "--cache-dir", tmp_path / "cache", *where)
    assert done.code == 5
    assert done.err.count("\n") == 1
    import re

    assert re.search(message, done.err), done.err
    assert not (tmp_path / "cache").exists()


def test_bad_files_and_names(yoda, tmp_path):
    cache = ("--cache-dir", tmp_path / "cache")
    assert yoda("weights", "import", tmp_path / "none.pth", *cache).code == 3
    (tmp_path / "half.ckpt").write_bytes(b"PK\3\4")
    done = yoda("weights", "import", tmp_path / "half.ckpt", *cache)
    assert (done.code, "truncated or damaged" in done.err) == (5, True)
    path = save(tmp_path / "x.pth", {"a": torch.zeros(1)})
    assert yoda("weights", "import", path, "--as", "nosuch", *cache).code == 2
    assert yoda("weights", "import", path, "--as", "photo", *cache).code == 2
    assert yoda("weights", "import", path, "--as", "general", *cache).code == 2


def test_another_file_under_a_pinned_name_is_refused(yoda, tmp_path):
    cache = ("--cache-dir", tmp_path / "cache")
    first = save(tmp_path / "a.pth", weights_of("diffbir_bsrnet"))
    other = save(tmp_path / "b.pth", {k: v + 1 for k, v in weights_of("diffbir_bsrnet").items()})
    assert yoda("weights", "import", first, *cache).code == 0
    done = yoda("weights", "import", other, *cache)
    assert done.code == 5
    assert "rm --forget" in done.err
    assert yoda("weights", "rm", "BSRNet.pth", "--forget", *cache).code == 0
    assert yoda("weights", "import", other, *cache).code == 0


def test_safetensors_are_imported_too(yoda, tmp_path):
    from safetensors.torch import save_file

    state = {k: v.clone() for k, v in weights_of("dino_vit_small16").items()}
    save_file(state, tmp_path / "x.safetensors")
    registry = load_registry()
    done = yoda("weights", "import", tmp_path / "x.safetensors", "--cache-dir", tmp_path / "cache",
                "--as", "dino_resnet50_pretrain.pth")  # fmt: skip
    assert done.code == 5
    assert "is DINO ViT-S/16" in done.err
    assert json.dumps(done.out)
    assert (
        Cache(tmp_path / "cache").trusted(registry.files["dino_deitsmall16_pretrain.pth"]) is None
    )
