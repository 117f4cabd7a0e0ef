"""AddSR and SeeSR: published names at full size, refinement between steps, masks, wrong files."""

import itertools

import pytest
import tiny_addsr as tiny
import tiny_stablesr
import torch
from cases import one_by_default
from safetensors.torch import load_file, save_file

from yoda_cli.config import SampleDefaults, UpscaleOptions
from yoda_cli.diffusion.noise import NoiseField
from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.diffusion.schedule import q_sample
from yoda_cli.diffusion.timesteps import four_timesteps
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.errors import DeviceError, WeightsError
from yoda_cli.models import timing
from yoda_cli.models.latent.addsr import AddSR, dape_input, picture_hint, refined_picture
from yoda_cli.models.latent.components import Components
from yoda_cli.models.latent.family import Steering
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.latent.stablesr import StableSR
from yoda_cli.models.model import Model
from yoda_cli.models.nets import seesr
from yoda_cli.models.nets.filling import check_fit, skeleton
from yoda_cli.tiling.plan import window_plan
from yoda_cli.upscaling.denoisers import RefiningDenoiser, WindowedDenoiser
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.weights.structures import structures

CPU = torch.device("cpu")
SETTINGS = FamilySettings(
    chain="four", color="adain", start="lr", refinement=0.4, head_dim=16, text_heads=4, shortest=64
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny.make_files(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(timing, "SIDES", (64,))  # networks are timed on one small window
    monkeypatch.setattr(timing, "REPEATS", 1)


def family_of(folder, refinement=0.4, **files):
    paths = {role: folder / name for role, name in tiny.NAMES.items()} | files
    settings = FamilySettings(**{**SETTINGS.__dict__, "refinement": refinement})
    return AddSR("tiny", settings, paths, CPU, torch.float32)


def model_of(folder, refinement=0.4):
    family = family_of(folder, refinement)
    defaults = SampleDefaults("edge", 0.3, 4, "renoise")
    return Model("tiny", family.net, defaults, CPU, torch.float32, {}, family, 4)


def upscaled(model, lr, **options):
    return upscale_tensor(lr, model, resolve(UpscaleOptions(model="tiny", **options), model))


def picture(height=24, width=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize(
    ("name", "make"), [("seesr_unet", seesr.make_unet), ("seesr_controlnet", seesr.make_control)]
)
def test_the_published_unet_and_controlnet_fit_at_full_size(name, make):
    state = {key: torch.empty(shape, device="meta") for key, shape in structures()[name].items()}
    config = seesr.infer_seesr(state)
    assert (config.channels, config.heads) == ((320, 640, 1280, 1280), (5, 10, 20, 20))
    assert (config.context, config.image_context) == (1024, 512)
    net = skeleton(lambda: make(config))
    check_fit(net, seesr.seesr_name, state, name)
    with pytest.raises(WeightsError, match="lacks"):
        check_fit(net, seesr.seesr_name, dict(list(state.items())[1:]), name)
    with pytest.raises(WeightsError, match="unknown"):
        check_fit(net, seesr.seesr_name, {**state, "more": torch.empty(1)}, name)


def test_the_published_dape_fits_at_full_size():
    state = {k: torch.empty(s, device="meta") for k, s in structures()["ram_tokens"].items()}
    config = seesr.infer_dape(state)
    assert (config.size, config.window, config.tokens) == (384, 12, 512)
    net = skeleton(lambda: seesr.DAPE(config))
    check_fit(net, seesr.dape_name, state, "ram")
    adapted = {k for k in structures()["dape_lora"] if k.startswith(seesr.DAPE_PARTS)}
    assert len(adapted) == 48
    assert {f"{k.rpartition('.')[0]}.weight" for k in adapted} < set(state)
    up = {k: torch.empty(structures()["dape_lora"][k], device="meta") for k in adapted}
    assert seesr.merge_lora(state | up).keys() == state.keys()


def test_fewer_steps_are_the_first_of_four():
    assert [four_timesteps(1000, n) for n in (1, 2, 3, 4, 9)] == [
        [1000, 0], [1000, 750, 0], [1000, 750, 500, 0], [1000, 750, 500, 250, 0],
        [1000, 750, 500, 250, 0],
    ]  # fmt: skip


def test_a_hint_is_cut_with_its_window_of_latents():
    seen = picture(40, 56)
    hint = picture_hint(seen, 64, 64)
    assert hint.shape == (1, 192, 8, 8)
    back = torch.nn.functional.pixel_shuffle(hint[..., 1:4, 2:6], 8)
    assert torch.equal(back, seen[..., 8:32, 16:48])


def test_the_next_step_is_steered_by_the_mix_of_the_estimate_and_the_picture(folder):
    family, lr = family_of(folder), picture(64, 80)
    with family.codec(0, Steering()) as codec:
        z_lr = codec.encode(lr * 2 - 1)
        first = family.condition(z_lr, lr, lr, Steering("a cat"))
        z_0 = z_lr + torch.randn(z_lr.shape, generator=torch.Generator().manual_seed(0))
        mix = refined_picture(codec.decode(z_0), lr, 0.4)
    second = family.refine(first, z_0, lr, 0)
    assert torch.equal(second.maps["hint"], picture_hint(mix, 64, 80))
    assert torch.equal(second.guidance.tokens["text"], first.guidance.tokens["text"])
    assert not torch.allclose(second.guidance.tokens["image"], first.guidance.tokens["image"])
    with family._dape.lent() as dape:
        assert torch.equal(second.guidance.tokens["image"], dape(dape_input(mix, 16)))
    assert second.guidance.negative is None
    assert family_of(folder, 0.0).refine(first, z_0, lr, 0) is first


def test_guidance_runs_against_the_negative_prompt_with_the_same_image_tokens(folder):
    family, lr = family_of(folder), picture(64, 64)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    both = family.condition(z, lr, lr, Steering("a cat", "a dog", 4.0))
    assert torch.equal(both.guidance.negative["image"], both.guidance.tokens["image"])
    plain = family.condition(z, lr, lr, Steering("a cat"))
    unwanted = family.condition(z, lr, lr, Steering("a dog"))
    t, mask = torch.tensor([500]), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    with family.denoiser() as net, torch.no_grad():
        mixed, wanted, away = (net.denoise(z, t, c, mask) for c in (both, plain, unwanted))
    assert torch.allclose(mixed, away + 4 * (wanted - away), atol=1e-4)
    assert not torch.allclose(wanted, away, atol=1e-4)
    refined = family.refine(both, z, lr, 0).guidance
    assert torch.equal(refined.negative["image"], refined.tokens["image"])


def test_mask_of_ones_is_plain_sampling_with_the_same_noise(folder):
    model = model_of(folder)
    family, lr = model.family, picture(64, 64)
    field, ones = NoiseField(3, 4), torch.ones(1, 1, 8, 8)
    chain = four_timesteps(1000, 4)
    with family.denoiser() as net, family.codec(0, Steering()) as codec:
        z_lr = codec.encode(lr * 2 - 1)
        condition = first = family.condition(z_lr, lr, lr, Steering())

        def refine(condition, z_0):
            return family.refine(condition, z_0, lr, 0)

        def draw(step):
            return field.draw(step, 0, 0, 8, 8)

        plan = window_plan(ones, chain, 0.3, 1000, 0, skip=True)
        masked = masked_sample(
            RefiningDenoiser(WindowedDenoiser(model, first, plan), refine),
            SAMPLERS["renoise"].step, net.schedule, chain, AttentionMask(ones, 0.3, 1000), z_lr,
            draw, start="lr",
        )  # fmt: skip
        z_0 = z_lr
        for t, _ in itertools.pairwise(chain):
            z_t = q_sample(net.schedule, z_0, t, draw(t))
            condition = condition if t == 1000 else refine(condition, z_0)
            with torch.no_grad():
                z_0 = net.predict(z_t, t, condition, ones.bool())
    assert torch.allclose(masked, z_0, atol=1e-4 * float(z_0.abs().max()))


@pytest.mark.slow
def test_idle_windows_are_skipped_with_the_same_bytes(folder):
    lr = picture(16, 40)
    lr[..., :24] = 0.4  # nothing to refine on the left
    results = {
        skip: upscaled(
            model_of(folder), lr, tile=64, skip=skip, lower_bound=0.2, attention_from="lr"
        )
        for skip in (True, False)
    }
    assert torch.equal(results[True].image, results[False].image)
    assert results[True].calls < results[False].calls


@pytest.mark.slow
def test_refinement_and_steps_change_the_picture(folder):
    lr = picture(16, 20)
    whole = upscaled(model_of(folder), lr, attention="uniform").image
    assert not torch.equal(upscaled(model_of(folder, 0.0), lr, attention="uniform").image, whole)
    once = [
        upscaled(model_of(folder, r), lr, attention="uniform", steps=1) for r in (0.4, 0.0)
    ]  # fmt: skip
    assert [result.calls for result in once] == [1, 1]
    assert torch.equal(once[0].image, once[1].image)  # there is nothing to refine between


@pytest.mark.parametrize(("height", "width"), one_by_default([(5, 5), (3, 70)]))
def test_small_and_long_pictures_come_out_at_the_size_asked_for(folder, height, width):
    made = upscaled(model_of(folder), picture(height, width), scale=3, steps=2, tile=64)
    assert made.image.shape == (1, 3, 3 * height, 3 * width)
    assert bool(made.image.isfinite().all())


@pytest.mark.parametrize(
    ("role", "given", "expected"),
    [
        ("unet", "controlnet", "the U-Net of AddSR or SeeSR"),
        ("controlnet", "unet", "the ControlNet of AddSR or SeeSR"),
        ("ram", "dape", "RAM with Swin-L"),
        ("dape", "ram", "DAPE"),
        ("diffusion", "unet", "Stable Diffusion 2"),
        ("unet", "diffusion", "the U-Net of AddSR or SeeSR"),
    ],
)
def test_a_file_in_the_slot_of_another_is_refused_by_what_it_is(folder, role, given, expected):
    with pytest.raises(WeightsError, match=f"{expected} was expected"):
        family_of(folder, **{role: folder / tiny.NAMES[given]})


def test_files_of_addsr_and_of_stablesr_do_not_pass_for_each_other(folder, tmp_path):
    tiny_stablesr.make_files(tmp_path)
    for role, expected in (("unet", "the U-Net"), ("controlnet", "the ControlNet")):
        with pytest.raises(WeightsError, match=f"{expected} of AddSR or SeeSR was expected"):
            family_of(folder, **{role: tmp_path / "tiny_stablesr.ckpt"})
    for name in ("unet", "controlnet"):
        files = {"diffusion": folder / tiny.NAMES[name]}
        with pytest.raises(WeightsError, match="StableSR in one file was expected"):
            StableSR("tiny", SETTINGS, files, CPU, torch.float32)


def test_stable_diffusion_1_and_an_unlike_controlnet_are_refused(folder, tmp_path):
    state = torch.load(folder / tiny.NAMES["diffusion"])["state_dict"]
    state["cond_stage_model.model.ln_final.weight"] = torch.ones(12)
    torch.save(state, tmp_path / "sd1.ckpt")
    with pytest.raises(WeightsError, match="Stable Diffusion 2 was expected"):
        family_of(folder, diffusion=tmp_path / "sd1.ckpt")
    control = load_file(folder / tiny.NAMES["controlnet"])
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    control[name] = torch.zeros(64, 20)
    save_file(control, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="the partner of"):
        family_of(folder, controlnet=tmp_path / "other.safetensors")


def test_a_truncated_file_is_refused(folder, tmp_path):
    whole = (folder / tiny.NAMES["unet"]).read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"not a readable \.safetensors"):
        family_of(folder, unet=tmp_path / "half.safetensors")


def test_too_little_memory_is_said_before_anything_is_read(folder, monkeypatch):
    model = model_of(folder)
    needed = 4 * sum(p.numel() for p in model.backbone.parameters()) * 1.2
    monkeypatch.setattr(
        "yoda_cli.models.latent.components.free_bytes", lambda device: int(needed * 1.1)
    )
    monkeypatch.setattr(Components, "restorer", lambda self: pytest.fail("stage one ran"))
    with pytest.raises(DeviceError, match=r"needs about 0\.0 GB on cpu"):  # of autoencoder and DAPE
        upscaled(model, picture())


def test_what_runs_between_the_steps_is_read_once_even_where_there_is_no_room(folder, monkeypatch):
    monkeypatch.setattr("yoda_cli.models.latent.components.ROOMY", 1 << 60)
    model, reads = model_of(folder), []
    read = model.family._dape.read
    model.family._dape.read = lambda: (reads.append(1), read())[1]
    upscaled(model, picture(16, 16), attention="uniform")
    assert len(reads) == 2  # for the first condition, and for all that follow
    assert model.backbone.is_empty
    assert model.family._dape.value is None
