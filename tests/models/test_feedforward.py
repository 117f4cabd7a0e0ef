"""Other people's networks of a single call: any that spandrel reads, run like our own."""

import json
import pickle

import numpy as np
import pytest
import torch
from fakes import photo
from PIL import Image
from safetensors.torch import save_file
from spandrel import ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.DnCNN import DnCNN
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.SPAN import SPAN
from spandrel.architectures.SwinIR import SwinIR

from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.models import network_facts
from yoda_cli.models.loading import find_model
from yoda_cli.models.network_facts import PeakBytes, reach
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve


def compact(scale, channels=3):
    return Compact(num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=3, upscale=scale)


NETWORKS = {
    "compact x4": lambda: compact(4),
    "compact x3": lambda: compact(3),
    "compact x2": lambda: compact(2),
    "compact x1": lambda: compact(1),
    "esrgan x8": lambda: ESRGAN(num_filters=8, num_blocks=1, scale=8),
    "esrgan x2 that folds its input": lambda: ESRGAN(
        in_nc=12, num_filters=8, num_blocks=1, scale=4, shuffle_factor=2
    ),
    "span x4": lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=4),
    "denoiser": lambda: DnCNN(in_nc=3, out_nc=3, nc=8, nb=8, act_mode="R"),
    "swinir x2": lambda: SwinIR(
        embed_dim=12, depths=[2], num_heads=[2], mlp_ratio=2.0, upscale=2, img_range=1.0,
        upsampler="pixelshuffledirect", window_size=8, img_size=64,
    ),
}  # fmt: skip


def saved(path, network, seed=2):
    """Random weights that make a picture, not a constant."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.5 * parameter[0].numel() ** -0.5)
    torch.save({"params_ema": network.state_dict()}, path)
    return path


def loaded(path, **options):
    options = UpscaleOptions(model=str(path), precision="fp32", **options)
    return find_model(options), options


def enlarged(path, lr, **options):
    model, asked = loaded(path, **options)
    return upscale_tensor(lr, model, resolve(asked, model))


def direct(path, lr):
    state = torch.load(path, weights_only=True)["params_ema"]
    return ModelLoader(device="cpu").load_from_state_dict(state).eval()(lr)


def decibels(a, b):
    return -10 * float(torch.log10((a - b).square().mean().clamp(min=1e-12)))


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # SwinIR's own
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_gives_what_spandrel_gives(tmp_path, name):
    path = saved(tmp_path / "net.pth", NETWORKS[name]())
    lr = photo(24, 40)
    result = enlarged(path, lr)
    expected = direct(path, lr)
    assert result.image.shape == expected.shape
    assert float((result.image - expected).abs().max()) < 1e-5
    assert float(expected.std()) > 0.01, "a constant picture would show nothing"
    assert result.calls == result.planned_calls >= 1


@pytest.mark.parametrize("name", ["compact x4", "compact x1", "esrgan x8"])
def test_tiles_and_blocks_leave_no_seam(tmp_path, name):
    path = saved(tmp_path / "net.pth", NETWORKS[name]())
    model, _ = loaded(path)
    side = 640 // model.scale
    lr = photo(side, side + 8)
    whole = enlarged(path, lr, tile=0).image
    for cut in ({"tile": 64}, {"block": 256, "tile": 0}, {"exact": True}):
        result = enlarged(path, lr, **cut)
        assert decibels(result.image, whole) > 55, cut
        assert float((result.image - whole).abs().max()) < 0.02, cut
    assert result.planned_calls > 1


def test_the_halo_is_measured_and_covers_what_the_network_sees(tmp_path):
    """Five 3×3 convolutions see five pixels far; a pooled mean sees all."""
    model, _ = loaded(saved(tmp_path / "net.pth", compact(4)))
    assert 4 <= model.backbone.geometry.halo <= 5 * 4
    pictures = torch.zeros(2, 1, 3, 8, 96)
    assert reach(pictures[0], pictures[1] + 0.1, 2) == network_facts.FARTHEST


def test_what_was_measured_is_kept_by_the_content_of_the_file(tmp_path, monkeypatch):
    path = saved(tmp_path / "net.pth", compact(2))
    model, _ = loaded(path)
    monkeypatch.setattr(network_facts, "measure", lambda *given: pytest.fail("measured again"))
    again, _ = loaded(path.rename(tmp_path / "other.pth"))
    assert again.backbone.geometry == model.backbone.geometry


def test_peak_bytes_are_those_that_live_at_one_time():
    with PeakBytes() as counted:
        for _ in range(5):
            torch.zeros(1000, dtype=torch.float32) + 1
    assert 8000 <= counted.peak < 12000


def test_half_precision_that_departs_too_far_is_left(tmp_path, monkeypatch):
    path = saved(tmp_path / "net.pth", compact(4))
    monkeypatch.setattr("yoda_cli.models.feedforward.pick_precision", picked)
    for found, expected in (
        (80.0, torch.bfloat16), (58.5, torch.bfloat16), (57.7, torch.float32), (40.0, torch.float32)
    ):  # fmt: skip
        facts = network_facts.Facts(16, 1, 100, found)
        monkeypatch.setattr("yoda_cli.models.feedforward.facts_of", lambda *given, f=facts: f)
        assert find_model(UpscaleOptions(model=str(path))).precision == expected
        kept = find_model(UpscaleOptions(model=str(path), precision="bf16"))
        assert kept.precision == torch.bfloat16, "what was asked for is done"


def picked(name, device):
    return torch.float32 if name == "fp32" else torch.bfloat16


def test_half_precision_is_measured_against_fp32(tmp_path):
    network = ModelLoader().load_from_state_dict(compact(4).state_dict()).eval()
    facts = network_facts.measure(network, torch.device("cpu"), torch.bfloat16)
    assert 30 < facts.decibels < 100
    whole = network_facts.measure(network, torch.device("cpu"), torch.float32)
    assert whole.decibels == network_facts.LARGEST_DECIBELS


def test_safetensors_of_others_and_ours_are_told_apart(tmp_path, tiny_checkpoint):
    save_file(compact(2).state_dict(), tmp_path / "theirs.safetensors")
    assert loaded(tmp_path / "theirs.safetensors")[0].scale == 2
    assert find_model(UpscaleOptions(model=str(tiny_checkpoint))).diffuses


def test_fidelity_leads_from_the_network_to_the_plain_enlargement(tmp_path):
    path = saved(tmp_path / "net.pth", compact(1))
    lr = photo(40, 40)
    assert torch.equal(enlarged(path, lr, fidelity=1).image, lr)
    near, far = (enlarged(path, lr, fidelity=f).image for f in (0.9, 0.1))
    assert decibels(near, lr) > decibels(far, lr)


REFUSED = {
    "grey": (lambda: compact(2, channels=1), "grey pictures only"),
    "fourth channel": (lambda: compact(2, channels=4), "a fourth channel"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_for_other_pictures_is_refused(tmp_path, name):
    make, message = REFUSED[name]
    with pytest.raises(UsageError, match=message):
        loaded(saved(tmp_path / "net.pth", make()))


def test_a_network_for_video_is_refused(tmp_path):
    torch.save({"spynet.basic_module.0.weight": torch.zeros(2)}, tmp_path / "video.pth")
    with pytest.raises(UsageError, match="for video"):
        loaded(tmp_path / "video.pth")


def test_broken_files_are_named(tmp_path):
    whole = saved(tmp_path / "net.pth", compact(2)).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        loaded(tmp_path / "cut.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="no network that spandrel knows"):
        loaded(tmp_path / "none.pth")
    state = compact(2).state_dict()
    state["body.0.weight"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match="not finite"):
        loaded(tmp_path / "nan.pth")


class Bomb:
    def __reduce__(self):
        import os

        return os.system, ("true",)


def test_code_in_a_file_is_never_run(tmp_path):
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"params": Bomb()}))
    with pytest.raises(WeightsError):
        loaded(tmp_path / "bomb.pth")


def test_options_of_diffusion_and_impossible_sizes_are_refused(tmp_path, yoda):
    path = saved(tmp_path / "net.pth", compact(1))
    Image.fromarray(np.full((8, 9, 3), 90, np.uint8)).save(tmp_path / "a.png")
    for given, said in ((("--steps", 4), "--steps"), (("-s", 2), "keeps the size"),
                        (("--width", 90), "keeps the size")):  # fmt: skip
        done = yoda("upscale", tmp_path / "a.png", "--model", path, "-q", *given)
        assert done.code == 2, done.err
        assert said in done.err
    done = yoda("upscale", tmp_path / "a.png", "--model", path, "-q", "-s", 0.5)
    assert done.code == 0, done.err


def opened(path):
    with Image.open(path) as image:
        return image.copy()


def test_a_folder_of_mixed_files_is_enlarged_like_by_our_own_models(tmp_path, yoda):
    """Grey, alpha, 16 bits and one that is broken; what each held is kept."""
    path = saved(tmp_path / "net.pth", compact(2))
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = (photo(30, 21)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(folder / "colour.jpg")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.png")
    alpha = np.concatenate([pixels, pixels[..., :1]], -1)
    Image.fromarray(alpha).save(folder / "alpha.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    done = yoda("upscale", folder, "-o", tmp_path / "out", "--model", path, "--json", "-q")
    assert done.code == 4
    records = [json.loads(line) for line in done.out.splitlines()]
    assert sum(record.get("status") != "failed" for record in records) == 4
    made = {p.name: opened(p) for p in (tmp_path / "out").glob("[a-z]*")}
    assert all(image.size == (42, 60) for image in made.values())
    assert made["grey.png"].mode == "L"
    assert made["alpha.png"].mode == "RGBA"
    assert made["deep.png"].mode.startswith("I")
