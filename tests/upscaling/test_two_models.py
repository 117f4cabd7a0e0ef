"""``--refine``: our diffusion on another's picture; ``--where``: two models in one picture."""

import json
import shlex

import numpy as np
import pytest
import torch
from fakes import photo, save_photo
from PIL import Image
from spandrel.architectures.Compact import Compact

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.noise import make_draw
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.errors import UsageError
from yoda_cli.models import loading, timing
from yoda_cli.models.base import Condition
from yoda_cli.upscaling.blending import blended
from yoda_cli.upscaling.blocks import picture_seed
from yoda_cli.upscaling.pipeline import get_model, upscale_tensor
from yoda_cli.upscaling.resolve import resolve


@pytest.fixture(autouse=True)
def quick(monkeypatch, tiny_checkpoint):
    """Small networks, timed on one small window."""
    monkeypatch.setattr(loading, "REFINER", str(tiny_checkpoint))
    monkeypatch.setattr(timing, "SIDES", (64,))
    monkeypatch.setattr(timing, "REPEATS", 1)


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """Files of networks by their factor and seed."""
    folder = tmp_path_factory.mktemp("nets")

    def file(scale=4, seed=1):
        path = folder / f"net{scale}-{seed}.pth"
        if not path.exists():
            torch.manual_seed(seed)
            net = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=3, upscale=scale)
            for parameter in net.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, 0, 0.5 * parameter[0].numel() ** -0.5)
            torch.save(net.state_dict(), path)
        return str(path)

    return file


def run(lr, model, **asked):
    """The result, the model and the settings of what is asked."""
    options = UpscaleOptions(model=str(model), device="cpu", precision="fp32", **asked)
    ready = get_model(options)
    settings = resolve(options, ready)
    return upscale_tensor(lr, ready, settings), ready, settings


def painted(folder, height, width):
    """A map that is black on the left half and white on the right."""
    levels = np.zeros((height, width), np.uint8)
    levels[:, width // 2 :] = 255
    Image.fromarray(levels).save(folder / "map.png")
    return str(folder / "map.png")


def test_without_diffusion_the_picture_is_theirs(nets):
    lr = photo(20, 28)
    theirs, *_ = run(lr, nets())
    made, model, _ = run(lr, nets(), refine=True, fidelity=1.0)
    assert made.calls == 0
    torch.testing.assert_close(made.image, theirs.image, atol=1e-6, rtol=0)
    assert model.name == "net4-1-refined"


def test_diffusion_begins_with_their_picture_and_ends_with_our_denoiser(nets):
    lr = photo(16, 24)
    made, model, settings = run(
        lr, nets(), refine=True, attention="gaussian", steps=3, fidelity=0.0
    )  # fmt: skip
    net, sampling = model.backbone, settings.sampling
    with torch.inference_mode():
        theirs, *_ = run(lr, nets())
        condition = net.ours.encode(lr, 0.0)
        z_lr = net.ours.to_z(theirs.image, condition)
        large = torch.nn.functional.interpolate(made.attention, (64, 96), mode="bilinear")
        z_0 = masked_sample(
            lambda z, t, mask: net.ours.predict(z, t, Condition(z_lr, condition.maps), mask),
            sampling.sampler.step, net.schedule, sampling.timesteps,
            AttentionMask(large.clamp(0, 1), settings.mask.lower_bound, net.schedule.num_steps),
            z_lr, make_draw(z_lr, picture_seed(0, lr), sampling.sampler, 0, 0),
        )  # fmt: skip
        expected = net.ours.decode(z_0, condition).clamp(0, 1)
    torch.testing.assert_close(made.image, expected, atol=1e-5, rtol=0)
    ours, *_ = run(lr, loading.REFINER, attention="gaussian", steps=3, fidelity=0.0)
    assert (made.image - ours.image).abs().max() > 1e-3  # theirs is seen in it


@pytest.mark.parametrize("scale", [2, 3])
def test_another_factor_is_resized_to_ours(nets, scale):
    made, *_ = run(photo(16, 20), nets(scale), refine=True, fidelity=1.0)
    assert made.image.shape == (1, 3, 64, 80)


def test_their_network_sees_across_the_tiles_of_the_encoder(nets, monkeypatch):
    lr = photo(64, 96)
    whole, *_ = run(lr, nets(), refine=True, fidelity=1.0)
    monkeypatch.setattr("yoda_cli.upscaling.memory_limits.LARGEST_QUICK", 64 * 64)
    monkeypatch.setattr("yoda_cli.upscaling.memory_limits.HALF", 0.0)
    monkeypatch.setattr("yoda_cli.upscaling.memory_limits.ENCODED_TOGETHER", 2)
    cut, *_ = run(lr, nets(), refine=True, fidelity=1.0)
    assert (cut.image - whole.image).square().mean().sqrt() < 10 ** (-55 / 20)


def test_what_cannot_be_refined_is_refused(nets, tiny_checkpoint):
    for model, said in ((tiny_checkpoint, "diffuses by itself"), (nets(1), "keeps the size")):
        with pytest.raises(UsageError, match=said):
            run(photo(8, 8), model, refine=True)
    with pytest.raises(UsageError, match="one of --refine and --where"):
        run(photo(8, 8), nets(), refine=True, where=nets(4, 2))


def test_a_blend_is_exact_at_both_ends():
    torch.manual_seed(0)
    one, other = torch.rand(2, 1, 3, 64, 64)
    weight = torch.zeros(1, 1, 16, 16)
    weight[..., 8:] = 1
    made = blended(one, other, weight)
    assert torch.equal(made[..., :28], one[..., :28])
    assert torch.equal(made[..., 36:], other[..., 36:])
    between = made[..., 28:36]
    low, high = torch.minimum(one, other)[..., 28:36], torch.maximum(one, other)[..., 28:36]
    assert bool(((between >= low - 1e-6) & (between <= high + 1e-6)).all())


def test_each_model_makes_its_half_and_skips_the_other(nets, tmp_path):
    lr, there = photo(64, 128), painted(tmp_path, 64, 128)
    one, other = (run(lr, nets(4, seed), tile=64)[0] for seed in (1, 2))
    made, *_ = run(lr, nets(4, 1), where=nets(4, 2), attention=there, tile=64)
    torch.testing.assert_close(made.image[..., :252], one.image[..., :252], atol=1e-5, rtol=0)
    torch.testing.assert_close(made.image[..., 260:], other.image[..., 260:], atol=1e-5, rtol=0)
    dense, *_ = run(lr, nets(4, 1), where=nets(4, 2), attention=there, tile=64, skip=False)
    assert made.calls == made.planned_calls < dense.calls == one.calls + other.calls
    torch.testing.assert_close(made.image, dense.image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", [0, 255])
def test_a_model_that_is_nowhere_wanted_is_not_run(nets, tmp_path, level):
    Image.new("L", (24, 16), level).save(tmp_path / "map.png")
    lr = photo(16, 24)
    made, *_ = run(lr, nets(4, 1), where=nets(4, 2), attention=str(tmp_path / "map.png"))
    alone, *_ = run(lr, nets(4, 2 if level else 1))
    assert torch.equal(made.image, alone.image)
    assert made.calls == alone.calls


def test_ours_and_theirs_share_a_picture_by_our_learned_map(nets, tiny_checkpoint):
    lr = photo(24, 32)
    made, _, settings = run(lr, nets(), where=str(tiny_checkpoint), steps=2, seed=3)
    assert (float(made.attention.min()), float(made.attention.max())) == (0, 1)
    assert settings.blend.source == "learned"
    apart = [run(lr, nets())[0], run(lr, tiny_checkpoint, steps=2, seed=3)[0]]
    expected = blended(apart[0].image, apart[1].image, made.attention)
    torch.testing.assert_close(made.image, expected, atol=1e-4, rtol=0)
    other, *_ = run(lr, tiny_checkpoint, where=nets(), steps=2, seed=3)  # the other way round
    expected = blended(apart[1].image, apart[0].image, made.attention)
    torch.testing.assert_close(other.image, expected, atol=1e-4, rtol=0)


def test_what_neither_of_two_models_reads_is_refused(nets):
    with pytest.raises(UsageError, match="--steps"):
        run(photo(8, 8), nets(), where=nets(4, 2), steps=4)
    with pytest.raises(UsageError, match="no learned attention"):
        run(photo(8, 8), nets(), where=nets(4, 2), attention="learned")
    with pytest.raises(UsageError, match="keeps the size"):
        run(photo(8, 8), nets(), where=nets(1))


@pytest.mark.parametrize("how", [["--refine"], ["--where"]])
def test_the_command_makes_the_same_file_again(nets, yoda, tmp_path, tiny_checkpoint, how):
    save_photo(tmp_path / "in.png", 12, 16)
    how = [*how, tiny_checkpoint] if how == ["--where"] else how
    done = yoda(
        "upscale", tmp_path / "in.png", "-m", nets(), *how, "-o", tmp_path / "a.png", "--steps", 2,
        "--json", "--precision", "fp32",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["status"] == "done"
    options = UpscaleOptions(
        model=nets(), steps=2, device="cpu", precision="fp32", refine=how == ["--refine"],
        where=None if how == ["--refine"] else str(tiny_checkpoint), denoise=0.0,
    )  # fmt: skip
    settings = resolve(options, get_model(options))
    line = shlex.split(settings.command(tmp_path / "in.png", tmp_path / "b.png"))
    assert yoda(*line[1:]).code == 0
    assert pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")


def pixels(path):
    with Image.open(path) as image:
        return image.tobytes()


def test_a_missing_second_model_is_named(nets, yoda, tmp_path):
    save_photo(tmp_path / "in.png", 8, 8)
    done = yoda("upscale", tmp_path / "in.png", "-m", nets(), "--where", "none.pth")
    assert (done.code, "no such checkpoint: none.pth" in done.err) == (5, True)
    done = yoda("upscale", tmp_path / "in.png", "-m", nets(), "--where", "genral")
    assert (done.code, "did you mean general?" in done.err) == (2, True)
