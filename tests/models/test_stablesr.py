"""StableSR: published names at full size, both forms of its weights, wrong files, masks, CFW."""

import importlib.util
import itertools
from dataclasses import replace

import pytest
import tiny_stablesr as tiny
import torch
from cases import one_by_default

from yoda_cli.config import SampleDefaults, UpscaleOptions
from yoda_cli.diffusion.noise import NoiseField
from yoda_cli.diffusion.schedule import q_sample
from yoda_cli.diffusion.steps import ddpm_step
from yoda_cli.diffusion.timesteps import openai_timesteps
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.errors import DeviceError, UsageError, WeightsError
from yoda_cli.evaluation.methods import make_method
from yoda_cli.evaluation.metrics import psnr
from yoda_cli.models.base import Guidance
from yoda_cli.models.latent.autoencoder import SCALING, Autoencoder, load_wrapped_vae
from yoda_cli.models.latent.family import Steering
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.latent.stablesr import StableSR
from yoda_cli.models.model import Model
from yoda_cli.models.nets import ldm
from yoda_cli.models.nets import stablesr as nets
from yoda_cli.models.nets.filling import check_fit, skeleton
from yoda_cli.tiling.plan import window_plan
from yoda_cli.upscaling.denoisers import WindowedDenoiser
from yoda_cli.upscaling.latent import LatentPipeline
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer
from yoda_cli.weights import Watch
from yoda_cli.weights.structures import structures

CPU = torch.device("cpu")
SETTINGS = FamilySettings(
    start="lr", head_dim=16, text_heads=4, shortest=64, window=8, whole=8, fidelity=0.5
)
WHOLE = {"diffusion": "tiny_stablesr.ckpt", "decoder": "tiny_cfw.ckpt"}
PARTS = {
    "diffusion": "tiny_sd21.ckpt",
    "modules": "tiny_modules.ckpt",
    "decoder": "tiny_cfw.ckpt",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny.make_files(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path / "cache"))


def family_of(folder, files=WHOLE, **settings):
    paths = {role: folder / name for role, name in files.items()}
    return StableSR("tiny", replace(SETTINGS, **settings), paths, CPU, torch.float32)


def model_of(folder, files=WHOLE, steps=3, **settings):
    family = family_of(folder, files, **settings)
    defaults = SampleDefaults("edge", 0.3, steps, "ddpm", family.settings.fidelity)
    return Model("tiny", family.net, defaults, CPU, torch.float32, {}, family, 4)


def run(lr, model, attention=None, **asked):
    """One pass of the latent pipeline with what is asked."""
    settings = resolve(UpscaleOptions(**asked), model)
    with torch.inference_mode():
        return LatentPipeline(model, model.family).run(lr, settings, Observer(), attention)


def picture(height=16, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def latent(height=8, width=16, seed=1):
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(seed))


def empty(*parts):
    """Tensors without memory: (prefix to take off, structure) of each part."""
    return {
        key.removeprefix(prefix): torch.empty(shape, device="meta")
        for prefix, name in parts
        for key, shape in structures()[name].items()
        if key.startswith(prefix)
    }


def published(part):
    """(the published tensors, the network that they ask for, how it names its own)."""
    if part == "unet":
        state = empty(("model.diffusion_model.", "stablesr_full"))
        config = ldm.infer_unet(state)
        make = lambda: nets.ModulatedUNet(config, 256)  # noqa: E731
        return state, make, lambda key: nets.modulated_unet_name(key, config)
    if part == "encoder":
        state = empty(("structcond_stage_model.", "stablesr_full"))
        shape = nets.infer_encoder(state)
        assert shape == nets.EncoderConfig(
            4, (256, 256, 512, 512), 2, (True, True, True, False), 256
        )
        return state, lambda: nets.TimeAwareEncoder(shape), nets.encoder_name
    state = empty(("", "stablesr_vae"))
    wrapped = nets.infer_wrapped_vae(state)
    assert (wrapped.levels, wrapped.blocks, wrapped.growth) == ((1, 2), 2, 32)
    return state, lambda: nets.WrappedVAE(wrapped), lambda k: nets.wrapped_vae_name(k, wrapped)


@pytest.mark.parametrize(("part", "count"), [("unet", 862), ("encoder", 200), ("vae", 404)])
def test_the_published_networks_fit_at_full_size(part, count):
    state, make, named = published(part)
    assert len(state) == count
    net = skeleton(make)
    check_fit(net, named, state, part)
    first = next(iter(state))
    with pytest.raises(WeightsError, match="lacks"):
        check_fit(net, named, {k: v for k, v in state.items() if k != first}, part)
    with pytest.raises(WeightsError, match="unknown"):
        check_fit(net, named, {**state, "invented.weight": torch.empty(1, device="meta")}, part)


def test_the_modules_are_what_was_trained_beside_stable_diffusion():
    modules = structures()["stablesr_modules"]
    assert len(modules) == 376
    assert sum(torch.Size(shape).numel() for shape in modules.values()) == 105_514_240


def test_both_forms_of_the_weights_are_one_model(folder):
    one, other = family_of(folder), family_of(folder, PARTS)
    one.networks.load()
    other.networks.load()
    theirs = other.net.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in one.net.state_dict().items())


MISPLACED = {
    "the decoder as the whole model": ({"diffusion": "tiny_cfw.ckpt"}, "StableSR in one file"),
    "the modules as the whole model": ({"diffusion": "tiny_modules.ckpt"}, "StableSR in one file"),
    "Stable Diffusion alone": ({"diffusion": "tiny_sd21.ckpt"}, "StableSR in one file"),
    "Stable Diffusion as modules": (PARTS | {"modules": "tiny_sd21.ckpt"}, "StableSR"),
    "the decoder as modules": (PARTS | {"modules": "tiny_cfw.ckpt"}, "StableSR"),
    "modules as Stable Diffusion": (PARTS | {"diffusion": "tiny_modules.ckpt"}, "Diffusion 2.1"),
    "the whole model as the decoder": (
        WHOLE | {"decoder": "tiny_stablesr.ckpt"}, "VAE with feature wrapping",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISPLACED)
def test_a_file_in_the_wrong_place_is_refused_by_what_it_is(folder, name):
    files, wanted = MISPLACED[name]
    with pytest.raises(WeightsError, match=rf"\.ckpt is .*; .*{wanted}.* was expected") as caught:
        family_of(folder, files)
    assert "\n" not in str(caught.value)


def test_a_stable_diffusion_of_another_text_width_is_refused(folder, tmp_path):
    for name in tiny.FILES:
        (tmp_path / name).symlink_to(folder / name)
    old = ldm.UNetConfig(4, (32, 64), 1, (True, False), 12, 16)
    net = tiny.named(ldm.make_unet(old), lambda key: ldm.unet_name(key, old))
    rest = torch.load(folder / "tiny_sd21.ckpt")["state_dict"]
    rest = {k: v for k, v in rest.items() if not k.startswith("model.")}
    torch.save({**tiny.prefixed("model.diffusion_model.", net), **rest}, tmp_path / "old.ckpt")
    with pytest.raises(WeightsError, match=r"context width 12 \(1\.x\)"):
        family_of(tmp_path, PARTS | {"diffusion": "old.ckpt"})


def test_damaged_weights_are_refused_when_they_are_read(folder, tmp_path):
    state = torch.load(folder / "tiny_stablesr.ckpt")["state_dict"]
    state["structcond_stage_model.fea_tran.0.in_layers.0.weight"][0] = torch.nan
    torch.save(state, tmp_path / "nan.ckpt")
    with pytest.raises(WeightsError, match="not finite"):
        family_of(tmp_path, {"diffusion": "nan.ckpt"}).networks.load()


def test_a_missing_extra_says_what_to_install(folder, monkeypatch):
    there = importlib.util.find_spec

    def find(name, *rest):
        return None if name in ("diffusers", "open_clip") else there(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(WeightsError, match=r"pip install .*\[diffbir\]'"):
        family_of(folder)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_mask_of_ones_is_plain_sampling_with_the_same_noise(folder, prediction):
    family = family_of(folder, prediction=prediction)
    family.networks.load()
    net, z_lr, chain = family.net, latent(), openai_timesteps(1000, 5)
    field = NoiseField(3, 4)

    def draw(step):
        return field.draw(step, 0, 0, 8, 16)

    ones = torch.ones(1, 1, 8, 16)
    plan = window_plan(ones, chain, 0.3, 1000, 0, skip=True)
    model = Model("tiny", net, SampleDefaults(), CPU, torch.float32)
    guidance = Guidance({"text": family.parts.text("")})
    condition = replace(net.encode(z_lr), guidance=guidance)
    masked = masked_sample(
        WindowedDenoiser(model, condition, plan), ddpm_step, net.schedule, chain,
        AttentionMask(ones, 0.3, 1000), z_lr, draw, start="lr",
    )  # fmt: skip
    z = q_sample(net.schedule, z_lr, 1000, draw(1000))
    for t, s in itertools.pairwise(chain):
        with torch.no_grad():
            z_0 = net.predict(z, t, condition, ones.bool())
        z = ddpm_step(net.schedule, z, z_0, t, s, draw(s) if s else torch.zeros_like(z))
    assert torch.allclose(masked, z, atol=1e-4 * float(z.abs().max()))


def test_idle_windows_are_skipped_with_the_same_bytes(folder):
    model, lr = model_of(folder), picture(16, 32)
    attention = torch.zeros(1, 1, 16, 32)
    attention[..., 28:] = 1
    results = {
        skip: run(lr, model, attention, steps=3, skip=skip, lower_bound=0.2)
        for skip in (True, False)
    }
    assert torch.equal(results[True].image, results[False].image)
    assert results[True].calls == results[True].plan.planned_calls
    assert results[False].calls == results[False].plan.dense_calls
    assert results[True].calls < results[False].calls


@pytest.mark.slow
def test_fidelity_is_the_decoders_and_diffusion_runs_whatever_it_is(folder):
    model, lr = model_of(folder), picture()
    made = {w: run(lr, model, fidelity=w, steps=2) for w in (0.0, 0.5, 1.0)}
    assert len({result.calls for result in made.values()}) == 1
    assert made[1.0].calls > 0
    assert not torch.equal(made[0.0].image, made[0.5].image)
    assert torch.equal(made[0.5].image, run(lr, model, steps=2).image)
    assert resolve(UpscaleOptions(denoise=0.5), model).sampling.fidelity == 0.5  # its own


def test_the_base_of_a_benchmark_is_the_picture_that_diffusion_starts_from(folder, monkeypatch):
    monkeypatch.setattr(StableSR, "denoiser", lambda self: pytest.fail("it diffuses"))
    base = make_method("base", UpscaleOptions(), model_of(folder), Watch())
    larger = torch.nn.functional.interpolate(picture(), (64, 64), mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(base.run(picture()).image, larger)


def test_without_features_the_decoders_file_is_not_needed(folder):
    lr = picture()
    plain = model_of(folder, {"diffusion": "tiny_stablesr.ckpt"}, fidelity=0.0)
    assert torch.equal(
        run(lr, plain, steps=2).image, run(lr, model_of(folder), fidelity=0.0, steps=2).image
    )


def test_a_decoder_in_one_piece_takes_up_all_features(folder):
    vae = load_wrapped_vae(family_of(folder).vae_tensors(), "tiny")
    image, z = picture(64, 128) * 2 - 1, latent()
    with torch.no_grad():
        expected = vae.decode(z / SCALING, vae.features(image), 0.7)
        plain = vae.decode(z / SCALING)
    assert torch.equal(Autoencoder(vae, CPU, w=0.7).decode(z, image), expected)
    assert torch.equal(Autoencoder(vae, CPU).decode(z, image), plain)
    assert not torch.allclose(expected, plain, atol=1e-3)


def test_tiles_of_the_decoder_share_their_statistics(folder):
    vae = load_wrapped_vae(family_of(folder).vae_tensors(), "tiny")
    ramp = torch.linspace(-0.9, 0.9, 384).expand(1, 3, 64, 384)
    noise = torch.randn(1, 3, 64, 384, generator=torch.Generator().manual_seed(2))
    image = (ramp + 0.1 * noise).clamp(-1, 1)
    whole, tiles = Autoencoder(vae, CPU, w=0.5), Autoencoder(vae, CPU, 8, 0.5)
    z = whole.encode(image)
    decoded = whole.decode(z, image)

    def close(x, y):
        low, high = x.min(), x.max()
        return psnr((y - low) / (high - low), (x - low) / (high - low), border=0)

    pooled = close(decoded, tiles.decode(z, image))
    for norm in tiles.norms:  # what each tile would do alone
        norm.forward = norm.norm.forward
    alone = close(decoded, tiles.decode(z, image))
    assert pooled > alone
    assert pooled > 25


def test_guidance_mixes_two_runs_of_the_unet_over_one_of_the_encoder(folder):
    family = family_of(folder)
    family.networks.load()
    net, z, t = family.net, latent(8, 8), torch.tensor([500])
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    calls = []
    for part in (net.unet, net.encoder):
        part.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape[0]))

    def denoised(steering):
        with torch.no_grad():
            condition = family.condition(z, picture(), picture(), steering)
            return net.denoise(z, t, condition, mask)

    wanted, unwanted = denoised(Steering("a cat")), denoised(Steering("a dog"))
    mixed = denoised(Steering("a cat", "a dog", 7.0))
    assert calls == [1, 1, 1, 1, 1, 2]
    assert torch.allclose(mixed, unwanted + 7 * (wanted - unwanted), atol=1e-4)
    assert not torch.allclose(wanted, unwanted, atol=1e-4)


def test_the_text_tower_is_read_once_for_the_empty_prompt(folder, monkeypatch):
    first = family_of(folder).condition(latent(), picture(), picture(), Steering())
    monkeypatch.setattr(
        "yoda_cli.models.latent.components.load_text", lambda *_: pytest.fail("read again")
    )
    again = family_of(folder).condition(latent(), picture(), picture(), Steering())
    assert torch.equal(first.guidance.tokens["text"], again.guidance.tokens["text"])


@pytest.mark.parametrize(("height", "width"), one_by_default([(20, 20), (3, 3), (17, 23), (2, 20)]))
def test_small_long_and_odd_pictures_come_out_at_the_size_asked_for(folder, height, width):
    made = run(picture(height, width), model_of(folder, steps=1, fidelity=0.0), scale=3)
    assert made.image.shape == (1, 3, 3 * height, 3 * width)
    assert bool(made.image.isfinite().all())


def test_enlarging_is_torchs_bicubic_and_shrinking_looks_at_every_pixel(folder):
    family, lr = family_of(folder), picture(40, 60)
    expected = torch.nn.functional.interpolate(lr, (80, 90), mode="bicubic").clamp(0, 1)
    assert torch.equal(family.restore(lr, 80, 90), expected)
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    assert float((family.restore(stripes, 8, 8) - 0.5).abs().max()) < 0.05


def test_what_it_has_no_use_for_is_refused(folder):
    with pytest.raises(UsageError, match="tiny does not read --strength"):
        run(picture(), model_of(folder), strength=0.5)


def test_maps_go_with_their_level_whatever_the_sides_are(folder):
    family = family_of(folder)
    family.networks.load()
    z, text = latent(7, 13), torch.randn(1, 77, 16)
    with torch.no_grad():
        maps = family.net.encoder(z, torch.tensor([499]))
        out = family.net.run(z, torch.tensor([500]), text, z)
    assert [tuple(level.shape[-2:]) for level in maps] == [(7, 13), (4, 7)]
    assert out.shape == z.shape


def test_too_little_memory_is_said_before_anything_is_read(folder, monkeypatch):
    model = model_of(folder)
    monkeypatch.setattr("yoda_cli.models.latent.components.free_bytes", lambda device: 1000)
    monkeypatch.setattr(StableSR, "restore", lambda *_: pytest.fail("it began"))
    with pytest.raises(DeviceError, match=r"about 0\.0 GB on cpu"):
        run(picture(), model)


@pytest.mark.slow
def test_weights_are_given_back_and_read_again(folder, monkeypatch):
    monkeypatch.setattr("yoda_cli.models.latent.components.ROOMY", 1 << 60)
    model = model_of(folder)
    assert model.family.net.is_empty
    one = run(picture(), model, steps=2)
    assert model.family.net.is_empty
    assert torch.equal(one.image, run(picture(), model, steps=2).image)


def test_networks_that_visit_the_device_in_turn_compute_the_same(folder, monkeypatch):
    family = family_of(folder)
    family.networks.load()
    net, z, text, t = family.net, latent(8, 8), torch.randn(1, 77, 16), torch.tensor([500])
    with torch.no_grad():
        plain, moved = net.run(z, t, text, z), []
        for name in ("encoder", "unet"):
            part = getattr(net, name)

            def to(device, name=name, there=part.to):
                moved.append((name, str(device)))
                return there(device)

            monkeypatch.setattr(part, "to", to)
        net.offloaded = True
        assert torch.equal(net.run(z, t, text, z), plain)
    assert moved == [("encoder", "cpu"), ("encoder", "cpu"), ("unet", "cpu"), ("unet", "cpu")]
