"""DiffBIR's parts: published names at full size, wrong files, tiles, guidance, windows."""

import importlib.util
import itertools
from dataclasses import replace

import pytest
import spandrel
import tiny_diffbir as tiny
import torch
import torch.nn.functional as F
from cases import one_by_default

from yoda_cli.config import SampleDefaults, UpscaleOptions
from yoda_cli.diffusion.noise import NoiseField
from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.diffusion.steps import ddpm_step
from yoda_cli.diffusion.timesteps import CHAINS
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.errors import DeviceError, UsageError, WeightsError
from yoda_cli.evaluation.metrics import psnr
from yoda_cli.models.base import Condition, Guidance
from yoda_cli.models.latent.autoencoder import Autoencoder, load_vae
from yoda_cli.models.latent.components import Components
from yoda_cli.models.latent.controlled import ControlledUNet, diffbir_design
from yoda_cli.models.latent.diffbir import DiffBIR
from yoda_cli.models.latent.family import Steering
from yoda_cli.models.latent.restorers import Restorer, load_restorer, restorer_of
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.model import Model
from yoda_cli.models.nets import ldm
from yoda_cli.models.nets.filling import check_fit, skeleton
from yoda_cli.models.nets.text import UNUSED, TextTower, infer_text
from yoda_cli.tiling.plan import window_plan
from yoda_cli.upscaling.denoisers import WindowedDenoiser
from yoda_cli.upscaling.latent import LatentPipeline
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer
from yoda_cli.weights.structures import structures

CPU = torch.device("cpu")
VERSION = FamilySettings(negative_prompt="blurry", head_dim=16, text_heads=4, shortest=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny.make_files(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path / "cache"))


def family_of(folder, settings=VERSION, **files):
    names = {
        "controlnet": "tiny_control.pth", "diffusion": "tiny_sd.ckpt", "stage1": "tiny_stage1.pth",
    }  # fmt: skip
    paths = {role: folder / name for role, name in names.items()} | files
    return DiffBIR("tiny", settings, paths, CPU, torch.float32)


def model_of(folder, steps=4, **version):
    family = family_of(folder, FamilySettings(**{**VERSION.__dict__, **version}))
    defaults = SampleDefaults("edge", 0.3, steps, "ddpm")
    return Model("tiny", family.net, defaults, CPU, torch.float32, {}, family, 4)


def run(lr, model, **asked):
    """One pass of the latent pipeline with what is asked."""
    settings = resolve(UpscaleOptions(**asked), model)
    with torch.inference_mode():
        return LatentPipeline(model, model.family).run(lr, settings, Observer())


def plan(lr, model, **asked):
    settings = resolve(UpscaleOptions(**asked), model)
    with torch.inference_mode():
        return LatentPipeline(model, model.family).plan(lr, settings)


def picture(height=40, width=56, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def empty(name):
    return {key: torch.empty(shape, device="meta") for key, shape in structures()[name].items()}


@pytest.mark.parametrize("name", ["diffbir_unet", "diffbir_controlnet"])
def test_the_published_unet_and_controlnet_fit_at_full_size(name):
    state = empty(name)
    config = ldm.infer_unet(state)
    assert config.channels == (320, 640, 1280, 1280)
    make = ldm.make_unet if name == "diffbir_unet" else ldm.ControlNet
    net = skeleton(lambda: make(config))
    check_fit(net, lambda key: ldm.unet_name(key, config), state, name)
    with pytest.raises(WeightsError, match="lacks"):
        check_fit(net, lambda key: ldm.unet_name(key, config), dict(list(state.items())[1:]), name)
    more = {**state, "input_hint_block.0.weight": torch.empty(1, device="meta")}
    with pytest.raises(WeightsError, match="unknown"):
        check_fit(net, lambda key: ldm.unet_name(key, config), more, name)


def test_the_published_vae_and_text_tower_fit_at_full_size():
    state = empty("diffbir_vae")
    config = ldm.infer_vae(state)
    net = skeleton(lambda: ldm.make_vae(config))
    check_fit(net, lambda key: ldm.vae_name(key, config), state, "vae")
    state = {k.removeprefix("model."): v for k, v in empty("diffbir_clip").items()}
    assert set(UNUSED) <= set(state)
    own = {k: v for k, v in state.items() if k not in UNUSED}
    text = infer_text(own)
    assert (text.heads, text.layers, text.width) == (16, 24, 1024)
    check_fit(skeleton(lambda: TextTower(text)), lambda key: key, own, "text")


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize(
    ("name", "scale"), [("diffbir_swinir", 1), ("diffbir_scunet", 1), ("diffbir_bsrnet", 4)]
)
def test_the_published_restorers_fit_at_full_size(name, scale):
    state = {
        key: torch.zeros(shape, dtype=torch.long if "index" in key else torch.float32)
        for key, shape in structures()[name].items()
    }
    restorer = restorer_of(state, name, CPU)
    assert restorer.scale == scale
    if scale == 1:
        found = spandrel.ModelLoader().load_from_state_dict(dict(state))
        ours = {key.replace("conv_first.1.", "conv_first.") for key in state}  # its own name
        assert set(found.model.state_dict()) == ours
        x = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(restorer.run(x), found.model.eval()(x))


def test_files_of_another_kind_are_refused_by_what_they_are(folder, tmp_path):
    with pytest.raises(WeightsError, match="DiffBIR's ControlNet was expected"):
        family_of(folder, controlnet=folder / "tiny_sd.ckpt")
    with pytest.raises(WeightsError, match=r"Stable Diffusion 2\.1 was expected"):
        family_of(folder, diffusion=folder / "tiny_control.pth")
    # An SD 1.x checkpoint: its cross-attention reads narrower text states.
    old = ldm.UNetConfig(4, (32, 64), 1, (True, False), 12, 16)
    state = {
        f"model.diffusion_model.{ldm.unet_name(k, old)}": v
        for k, v in ldm.make_unet(old).state_dict().items()
    }
    torch.save({"state_dict": state}, tmp_path / "old.ckpt")
    with pytest.raises(WeightsError, match=r"context width 12 \(1\.x\), not 2\.1"):
        family_of(folder, diffusion=tmp_path / "old.ckpt")
    # A ControlNet that reads a hint through a stack of its own has four input channels.
    plain = ldm.UNetConfig(4, (32, 64), 1, (True, False), 16, 16)
    state = tiny.named(ldm.ControlNet(plain), lambda k: ldm.unet_name(k, plain))
    torch.save(state, tmp_path / "hint.pth")
    with pytest.raises(WeightsError, match="DiffBIR's ControlNet was expected"):
        family_of(folder, controlnet=tmp_path / "hint.pth")
    with pytest.raises(WeightsError, match="no network that spandrel knows"):
        load_restorer(folder / "tiny_control.pth", CPU)


def test_damaged_weights_are_refused_when_they_are_read(folder, tmp_path):
    state = torch.load(folder / "tiny_control.pth")
    state["zero_convs.0.0.bias"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    parts = family_of(folder, controlnet=tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match="not finite"):
        parts.networks.load()


def test_a_missing_extra_says_what_to_install(folder, monkeypatch):
    there = importlib.util.find_spec

    def find(name, *rest):
        return None if name in ("diffusers", "open_clip") else there(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(WeightsError, match=r"pip install .*\[diffbir\]'"):
        family_of(folder)


def test_too_little_memory_is_said_with_the_figure_before_anything_is_read(folder, monkeypatch):
    model = model_of(folder)
    monkeypatch.setattr("yoda_cli.models.latent.components.free_bytes", lambda device: 1000)
    monkeypatch.setattr(Components, "restorer", lambda self: pytest.fail("stage one ran"))
    with pytest.raises(DeviceError, match=r"about 0\.0 GB on cpu"):
        run(picture(), model)


def test_mask_of_ones_is_plain_sampling_with_the_same_noise(folder):
    family = family_of(folder)
    family.networks.load()
    net = family.net
    z_lr = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(1))
    chain = CHAINS["openai"](1000, 5)
    field = NoiseField(3, 4)

    def draw(step):
        return field.draw(step, 0, 0, 8, 16)

    ones = torch.ones(1, 1, 8, 16)
    plan = window_plan(ones, chain, 0.3, 1000, 0, skip=True)
    model = Model("tiny", net, SampleDefaults(), CPU, torch.float32)
    steering = Steering(negative_prompt="blurry", cfg=4.0)
    condition = family.condition(z_lr, picture(), picture(), steering)
    denoiser = WindowedDenoiser(model, condition, plan)
    masked = masked_sample(
        denoiser, SAMPLERS["ddpm"].step, net.schedule, chain, AttentionMask(ones, 0.3, 1000), z_lr,
        draw
    )  # fmt: skip
    z = draw(1000)
    for t, s in itertools.pairwise(chain):
        with torch.no_grad():
            z_0 = net.predict(z, t, condition, ones.bool())
        noise = draw(s) if s else torch.zeros_like(z)
        z = ddpm_step(net.schedule, z, z_0, t, s, noise)
    assert torch.allclose(masked, z, atol=1e-4 * float(z.abs().max()))


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.slow
def test_idle_windows_are_skipped_with_the_same_bytes(folder, prediction):
    sampler, chain = ("ddpm", "openai") if prediction == "eps" else ("dpm++3m-sde", "trailing")
    model = model_of(folder, prediction=prediction, chain=chain, cfg=3.0)
    lr = picture()
    lr[..., :28] = 0.4  # nothing to refine on the left
    results = {}
    for skip in (True, False):
        results[skip] = run(
            lr, model, steps=6, tile=64, skip=skip, lower_bound=0.2, attention_from="lr",
            sampler=sampler,
        )  # fmt: skip
    assert torch.equal(results[True].image, results[False].image)
    assert results[True].calls == results[True].plan.planned_calls
    assert results[False].calls == results[False].plan.dense_calls
    assert results[True].calls < results[False].calls


@pytest.mark.parametrize(("sampler", "last"), [("ddpm", [1, 0]), ("dpm++", [250, 0])])
def test_a_sampler_that_extrapolates_gets_even_steps(folder, sampler, last):
    """The respaced chain of v1 and v2 ends in a leap that multi-step solvers do not survive."""
    timesteps = plan(picture(), model_of(folder), sampler=sampler).first.timesteps
    assert list(timesteps[-2:]) == last


def test_a_window_with_one_active_pixel_runs_and_the_mask_is_pooled_by_its_largest(folder):
    model = model_of(folder)
    lr = torch.full((1, 3, 32, 32), 0.5)
    lr[..., 16, 16] = 1.0
    seen = plan(lr, model, attention_from="lr", attention="uniform")
    assert seen.on_grid.shape == (1, 1, 16, 16)
    attention = torch.zeros(1, 1, 16, 16)
    attention[..., 9, 9] = 1.0
    windows = window_plan(attention, [1000, 500, 0], 0.1, 1000, 8, skip=True)
    first = windows.layouts[0]
    assert {t.window for t in first.active} == {
        t.window for t in first.active + first.idle
        if t.window.top <= 9 < t.window.bottom and t.window.left <= 9 < t.window.right
    }  # fmt: skip
    assert len(first.active) == 4
    assert not windows.layouts[1].idle


@pytest.mark.slow
def test_fidelity_goes_from_the_sample_to_the_restored_picture(folder):
    model = model_of(folder)
    lr = picture()

    def made(fidelity):
        return run(lr, model, fidelity=fidelity, steps=3)

    base = made(1.0)
    assert base.calls == 0
    distances = [float((made(f).image - base.image).abs().mean()) for f in (0.0, 0.3, 0.9)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]


def test_guidance_is_skipped_at_scale_one_and_mixes_two_runs_else(folder):
    family = family_of(folder)
    family.networks.load()
    net = family.net
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    t = torch.tensor([500])
    wanted = family.condition(z, picture(), picture(), Steering("a cat"))
    assert wanted.guidance.negative is None
    both = family.condition(z, picture(), picture(), Steering("a cat", "a dog", 4.0))
    swapped = replace(both, guidance=Guidance(both.guidance.negative))
    calls = []
    net.unet.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape[0]))
    with torch.no_grad():
        plain = net.denoise(z, t, wanted, mask)
        mixed = net.denoise(z, t, both, mask)
        unwanted = net.denoise(z, t, swapped, mask)
    assert calls == [1, 2, 1]
    assert torch.allclose(mixed, unwanted + 4 * (plain - unwanted), atol=1e-4)
    assert not torch.allclose(plain, unwanted, atol=1e-4)
    with pytest.raises(ValueError, match="as many strengths"):
        net.run(z, t, both.guidance.tokens, z, [1.0, 0.5])
    with pytest.raises(ValueError, match="needs its guidance"):
        net.denoise(z, t, Condition(z, {"hint": z}), mask)


def test_the_text_tower_is_read_once_for_a_prompt(folder, monkeypatch):
    first = family_of(folder).parts.text("a house")
    monkeypatch.setattr(
        "yoda_cli.models.latent.components.load_text", lambda *_: pytest.fail("read again")
    )
    assert torch.equal(first, family_of(folder).parts.text("a house"))


@pytest.mark.slow
def test_weights_are_given_back_and_read_again(folder, monkeypatch):
    monkeypatch.setattr("yoda_cli.models.latent.components.ROOMY", 1 << 60)
    model = model_of(folder)
    assert model.family.net.is_empty
    one = run(picture(), model, steps=2)
    assert model.family.net.is_empty
    two = run(picture(), model, steps=2)
    assert torch.equal(one.image, two.image)


@pytest.mark.slow
def test_tiles_of_the_autoencoder_share_their_statistics(folder):
    state = torch.load(folder / "tiny_sd.ckpt")["state_dict"]
    prefix = "first_stage_model."
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    vae = load_vae(own, "tiny")
    # Left dark, right bright: tiles alone would each be normalised by themselves.
    ramp = torch.linspace(-0.9, 0.9, 512).expand(1, 3, 256, 512)
    image = (ramp + 0.1 * torch.randn(1, 3, 256, 512)).clamp(-1, 1)
    whole, tiles = Autoencoder(vae, CPU), Autoencoder(vae, CPU, 16)
    latent = whole.encode(image)
    assert tiles.encode(image).shape == latent.shape == (1, 4, 32, 64)
    decoded = whole.decode(latent)

    def close(x, y):
        low, high = x.min(), x.max()
        return psnr((y - low) / (high - low), (x - low) / (high - low), border=0)

    pooled = close(decoded, tiles.decode(latent))
    for norm in tiles.norms:  # what each tile would do alone
        norm.forward = norm.norm.forward
    alone = close(decoded, tiles.decode(latent))
    assert pooled > alone + 1
    assert pooled > 25


def test_a_restorer_gives_the_same_picture_in_tiles(folder, monkeypatch):
    restorer = load_restorer(folder / "tiny_stage1.pth", CPU)
    lr = picture(150, 200)
    whole = restorer.restore(lr, 600, 800)
    monkeypatch.setattr("yoda_cli.models.latent.restorers.CORE", 64)
    monkeypatch.setattr("yoda_cli.models.latent.restorers.HALO", 64)
    tiled = restorer.restore(lr, 600, 800)
    assert whole.shape == (1, 3, 600, 800)
    assert torch.allclose(whole, tiled, atol=1e-5)
    same = Restorer("same", lambda x: x, 1, CPU)
    assert same.restore(lr, 300, 400).shape == (1, 3, 300, 400)


def test_a_picture_that_is_made_smaller_is_not_enlarged_by_its_restorer_first(monkeypatch):
    seen = []

    def run(image):
        seen.append(tuple(image.shape[-2:]))
        return F.interpolate(image, scale_factor=4)

    restorer = Restorer("four", run, 4, CPU)
    lr = picture(300, 400)
    assert restorer.restore(lr, 30, 40).shape == (1, 3, 30, 40)
    assert seen == [(64, 64)]  # 30 × 40, to whole windows
    restorer.restore(lr, 300, 400)
    assert seen[1] == (320, 448)
    monkeypatch.setattr("yoda_cli.models.latent.restorers.free_bytes", lambda device: 1_000_000)
    with pytest.raises(DeviceError, match="stage one makes 1,920,000 pixels"):
        restorer.restore(lr, 300, 400)
    assert len(seen) == 2


@pytest.mark.parametrize(("height", "width"), one_by_default([(20, 20), (9, 70), (3, 3)]))
def test_small_and_long_pictures_come_out_at_the_size_asked_for(folder, height, width):
    model = model_of(folder, steps=1)
    made = run(picture(height, width), model, scale=3)
    assert made.image.shape == (1, 3, 3 * height, 3 * width)
    assert bool(made.image.isfinite().all())


def test_what_a_latent_model_does_not_do_is_refused(folder):
    from yoda_cli.upscaling.checks import check_model, check_options

    model = model_of(folder)
    with pytest.raises(UsageError, match="no learned attention"):
        plan(picture(), model, attention="learned")
    with pytest.raises(UsageError, match="one block"):
        run(picture(), model, block=512)
    for wrong in ({"cfg": -1.0}, {"strength": 3.0}, {"task": "cats"}, {"attention_from": "sky"}):
        with pytest.raises(UsageError):
            check_options(UpscaleOptions(**wrong))
    from fakes import fake_model

    for asked in ({"prompt": "a cat"}, {"cfg": 2.0}, {"stage1": "none"}, {"task": "sr"}):
        with pytest.raises(UsageError, match="does not read --"):
            check_model(fake_model(), UpscaleOptions(**asked))


def test_shapes_only_until_the_weights_come(folder):
    net = ControlledUNet(diffbir_design(tiny.UNET, tiny.CONTROL))
    assert net.is_empty
    state = torch.load(folder / "tiny_control.pth")
    net.fill("control", state, "control")
    assert net.is_empty
    key = "zero_convs.0.0.weight"
    assert torch.equal(net.control.state_dict()["zero_convs.0.weight"], state[key])


def test_networks_that_visit_the_device_in_turn_compute_the_same(folder, monkeypatch):
    family = family_of(folder)
    family.networks.load()
    net = family.net
    z, text = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 16)
    t = torch.tensor([500])
    with torch.no_grad():
        plain = net.run(z, t, {"text": text}, z)
        moved = []
        for name in ("control", "unet"):
            there = getattr(net, name).to
            monkeypatch.setattr(
                getattr(net, name),
                "to",
                lambda d, n=name, f=there: (moved.append((n, str(d))), f(d))[1],
            )
        net.offloaded = True
        assert torch.equal(net.run(z, t, {"text": text}, z), plain)
    assert moved == [("control", "cpu"), ("control", "cpu"), ("unet", "cpu"), ("unet", "cpu")]


def test_a_gpu_with_room_for_one_network_gets_them_in_turn(folder, monkeypatch):
    family = family_of(folder)
    family.parts.device = torch.device("cuda")
    whole = 4 * sum(parameter.numel() for parameter in family.net.parameters())
    monkeypatch.setattr(
        "yoda_cli.models.latent.components.free_bytes", lambda device: int(whole * 1.1)
    )
    family.check_memory()
    assert family.net.offloaded
    monkeypatch.setattr(
        "yoda_cli.models.latent.components.free_bytes", lambda device: int(whole * 0.4)
    )
    with pytest.raises(DeviceError, match="are free"):
        family.check_memory()


def test_a_network_that_fails_on_the_device_is_brought_back(folder, monkeypatch):
    net = family_of(folder).net
    moved = []
    monkeypatch.setattr(net.unet, "to", lambda device: (moved.append(str(device)), net.unet)[1])
    net.offloaded = True
    with pytest.raises(RuntimeError, match="no room"), net.visiting(net.unet, torch.device("meta")):
        raise RuntimeError("no room")
    assert moved == ["meta", "cpu"]
