"""Whole pipelines on a CUDA device that is not there: nothing is left on the wrong device or in
the wrong precision. Values are compared elsewhere, on the CPU and by the device report."""

import pytest
import tiny_diffbir
import torch
from fake_cuda import CUDA, fake_cuda
from fakes import photo, save_photo
from PIL import Image
from torch import nn

from yoda_cli.config import SampleDefaults, UpscaleOptions
from yoda_cli.models import calibration
from yoda_cli.models.loading import find_model, place
from yoda_cli.models.sr3 import SR3, SR3Config
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.result import Observer

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

PRECISIONS = ("fp32", "bf16", "fp16")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Networks are timed on one small window, once."""
    monkeypatch.setattr(calibration, "SIDES", (64,))
    monkeypatch.setattr(calibration, "REPEATS", 1)


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
            with pytest.raises(RuntimeError, match=r"type|Half"):
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


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("sampler", ["ddim", "dpm++3m-sde"])
def test_a_checkpoint_runs_on_the_device(tiny_checkpoint, precision, sampler):
    options = UpscaleOptions(
        model=str(tiny_checkpoint), device="cuda", precision=precision, sampler=sampler, tile=64,
    )  # fmt: skip
    steps = []
    with fake_cuda() as machine:
        model = find_model(options)
        observer = Observer(on_step=steps.append, whole=sampler == "ddim")
        result = upscale_tensor(photo(24, 40), model, options, observer)
        assert machine.moved["to"] > 0
    assert result.image.shape == (1, 3, 96, 160)
    assert {parameter.device for parameter in model.backbone.parameters()} == {CUDA}
    assert all(record.z_s.device == CUDA for record in steps)
    assert len(steps) == (4 if sampler == "ddim" else 0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sr3_with_attention_over_pixels_runs_on_the_device(precision):
    net = SR3(SR3Config(inner_channel=16, channel_mults=(1, 2), res_blocks=1, attn_levels=(1,),
                        norm_groups=8, num_steps=10, schedule="linear"))  # fmt: skip
    options = UpscaleOptions(device="cuda", precision=precision, attention="edge")
    defaults = SampleDefaults("edge", 0.3, 2, "ddpm")
    with fake_cuda():
        result = upscale_tensor(photo(16, 16), place(net, "sr3", defaults, options), options)
    assert result.image.shape[-2:] == (16 * net.scale, 16 * net.scale)


def test_a_tensor_that_was_left_behind_is_found(tiny_checkpoint, monkeypatch):
    options = UpscaleOptions(model=str(tiny_checkpoint), device="cuda", precision="fp32")
    with fake_cuda():
        model = find_model(options)
        predict = model.backbone.predict
        monkeypatch.setattr(
            model.backbone, "predict", lambda z, *rest: predict(z, *rest) + torch.zeros(z.shape)
        )
        with pytest.raises(RuntimeError, match="same device"):
            upscale_tensor(photo(24, 40), model, options)


@pytest.fixture(scope="module")
def diffbir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffbir")
    tiny_diffbir.make_files(folder)
    tiny_diffbir.write_registry(folder / "eps.toml")
    tiny_diffbir.write_registry(
        folder / "v.toml", prediction="v", chain="trailing", cfg=3.0, sampler="dpm++3m-sde"
    )
    save_photo(folder / "in.png", 24, 32)
    return folder


@pytest.mark.parametrize(
    ("registry", "precision"), [("eps", "fp32"), ("eps", "fp16"), ("v", "bf16")]
)
def test_a_latent_model_runs_on_the_device(diffbir, yoda, tmp_path, registry, precision):
    shared = ("--registry", diffbir / f"{registry}.toml", "--cache-dir", diffbir / "cache")
    for name in ("tiny_control.pth", "tiny_sd.ckpt", "tiny_stage1.pth"):
        assert yoda("weights", "import", diffbir / name, "--as", name, *shared).code == 0
    with fake_cuda() as machine:
        done = yoda(
            "upscale", diffbir / "in.png", "-m", "tiny", "-o", tmp_path / "out.png", *shared,
            "--device", "cuda", "--precision", precision, "--tile", 64, "--steps", 2,
        )  # fmt: skip
        assert machine.moved["to"] > 0
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (128, 96)
