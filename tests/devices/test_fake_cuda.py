"""Whole pipelines on a CUDA device that is not there: nothing is left on the wrong device or in
the wrong precision. Values are compared elsewhere, on the CPU and by the device report."""

from dataclasses import replace

import pytest
import tiny_addsr
import tiny_diffbir
import torch
from cases import one_by_default
from fake_cuda import CUDA, fake_cuda
from fakes import photo
from torch import nn

from yoda_cli.config import SampleDefaults, UpscaleOptions
from yoda_cli.models import timing
from yoda_cli.models.latent.addsr import AddSR
from yoda_cli.models.latent.diffbir import DiffBIR
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.loading import find_model, put_on_device
from yoda_cli.models.model import Model
from yoda_cli.models.sr3 import SR3, SR3Config
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Networks are timed on one small window, once."""
    monkeypatch.setattr(timing, "SIDES", (64,))
    monkeypatch.setattr(timing, "REPEATS", 1)


def test_the_device_refuses_what_a_real_one_refuses():
    with fake_cuda() as machine:
        here, there = torch.ones(2, 3, 8, 8), torch.ones(2, 3, 8, 8, device=CUDA)
        conv = nn.Conv2d(3, 4, 3).to(CUDA)
        for wrong in (
            lambda: here + there, lambda: torch.cat([here, there]), lambda: conv(here),
            lambda: torch.where(there > 0, here, there), lambda: there.lerp(here, 0.5),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match="device"):
                wrong()
        for mixed in (
            lambda: conv(there.half()),
            lambda: there.flatten(1) @ there.flatten(1).mT.half(),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match=r"type|Half|Float"):
                mixed()
        with torch.autocast("cuda", torch.bfloat16):
            assert conv(there).dtype == torch.bfloat16
        assert (there * torch.tensor(2.0)).device == CUDA
        before = machine.moved["from"]
        here[0] = there[0].cpu()
        assert bool(there.isfinite().all())
        assert machine.moved["from"] == before + 1
        assert here[0].unique().tolist() == [0.5]


def test_the_cpu_computes_as_ever_beside_the_device():
    with fake_cuda():
        assert torch.arange(5).sum().item() == 10
        assert torch.linspace(0, 1, 3).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("precision", "sampler"), [("fp32", "ddim"), ("bf16", "dpm++3m-sde"), ("fp16", "ddpm")]
)
def test_a_checkpoint_runs_on_the_device(tiny_checkpoint, precision, sampler):
    options = UpscaleOptions(
        model=str(tiny_checkpoint), device="cuda", precision=precision, sampler=sampler, steps=2
    )
    steps = []
    with fake_cuda() as machine:
        model = find_model(options)
        observer = Observer(on_step=steps.append, whole=True)
        result = upscale_tensor(photo(16, 20), model, resolve(options, model), observer)
        assert machine.moved["to"] > 0
    assert result.image.shape == (1, 3, 64, 80)
    assert {parameter.device for parameter in model.backbone.parameters()} == {CUDA}
    assert [record.z_s.device for record in steps] == [CUDA, CUDA]


@pytest.mark.parametrize("precision", one_by_default(["fp32", "fp16"]))
def test_sr3_with_attention_over_pixels_runs_on_the_device(precision):
    net = SR3(SR3Config(inner_channel=16, channel_mults=(1, 2), res_blocks=1, attn_levels=(1,),
                        norm_groups=8, num_steps=10, schedule="linear"))  # fmt: skip
    options = UpscaleOptions(device="cuda", precision=precision, attention="edge")
    defaults = SampleDefaults("edge", 0.3, 2, "ddpm")
    with fake_cuda():
        model = put_on_device(net, "sr3", defaults, options)
        result = upscale_tensor(photo(16, 16), model, resolve(options, model))
    assert result.image.shape[-2:] == (16 * model.scale, 16 * model.scale)


def test_a_tensor_that_was_left_behind_is_found(tiny_checkpoint, monkeypatch):
    options = UpscaleOptions(
        model=str(tiny_checkpoint), device="cuda", precision="fp32", steps=1
    )  # fmt: skip
    with fake_cuda():
        model = find_model(options)
        predict = model.backbone.predict
        monkeypatch.setattr(
            model.backbone, "predict", lambda z, *rest: predict(z, *rest) + torch.zeros(z.shape)
        )
        with pytest.raises(RuntimeError, match="same device"):
            upscale_tensor(photo(16, 16), model, resolve(options, model))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The published files of each family, small."""
    folder = tmp_path_factory.mktemp("files")
    for tiny in (tiny_diffbir, tiny_addsr):
        tiny.make_files(folder)
    return folder


def latent_model(make, names, files, precision, **settings):
    own = FamilySettings(head_dim=16, text_heads=4, shortest=64, **settings)
    paths = {role: files / name for role, name in names.items()}
    family = make("tiny", own, paths, CUDA, precision)
    defaults = SampleDefaults("edge", 0.3, 2, "ddpm")
    return Model("tiny", family.net, defaults, CUDA, precision, {}, family, 4)


DIFFBIR = {"controlnet": "tiny_control.pth", "diffusion": "tiny_sd.ckpt"}
LATENT = {
    "DiffBIR": (DiffBIR, DIFFBIR | {"stage1": "tiny_stage1.pth"}, torch.float32, {"cfg": 3.0}),
    "DiffBIR, v": (DiffBIR, DIFFBIR, torch.bfloat16, {"prediction": "v", "chain": "trailing"}),
    "AddSR": (AddSR, tiny_addsr.NAMES, torch.float16,
              {"chain": "four", "start": "lr", "refinement": 0.4}),
    "SeeSR": (AddSR, tiny_addsr.NAMES, torch.float32, {"cfg": 2.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", one_by_default(LATENT))
def test_a_latent_model_runs_on_the_device(files, name):
    make, names, precision, settings = LATENT[name]
    options = UpscaleOptions(model="tiny", device="cuda", tile=64, batch=2)
    with fake_cuda() as machine:
        model = latent_model(make, names, files, precision, **settings)
        sampler = "renoise" if name == "AddSR" else "ddpm"
        resolved = resolve(replace(options, sampler=sampler), model)
        result = upscale_tensor(photo(16, 24), model, resolved)
        assert machine.moved["to"] > 0
    assert result.image.shape == (1, 3, 64, 96)


@pytest.mark.slow
def test_networks_that_visit_a_full_device_in_turn_leave_nothing_there(files, monkeypatch):
    make, names, precision, settings = LATENT["DiffBIR, v"]
    with fake_cuda():
        model = latent_model(make, names, files, precision, **settings)
        values = sum(parameter.numel() for parameter in model.backbone.parameters())
        monkeypatch.setattr(
            "yoda_cli.models.latent.components.free_bytes", lambda device: int(values * 2 * 1.1)
        )
        upscale_tensor(photo(16, 16), model, resolve(UpscaleOptions(model="tiny", steps=1), model))
    assert model.backbone.offloaded
    assert model.backbone.is_empty
