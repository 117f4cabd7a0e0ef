"""Small pictures in step: each is what it is alone, with its own noise, map, damage and file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import fake_model, save_photo
from PIL import Image

from yoda_cli.config import UpscaleOptions
from yoda_cli.upscaling import together
from yoda_cli.upscaling.batch.groups import groups_of
from yoda_cli.upscaling.picture import Item
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer


def pictures(count, height=13, width=22):
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(1, 3, height, width, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("changes", [{}, {"sampler": "ddpm"}, {"tile": 32}, {"fidelity": 0.5}])
def test_pictures_in_step_are_those_made_alone(changes):
    model, lrs, told = fake_model(), pictures(3), ([], [], [])
    asked = UpscaleOptions(denoise=0.0, steps=4, **changes)
    settings = [resolve(asked, model)] * 3
    seen = [
        Observer(
            on_plan=lambda calls, seconds, i=i: told[i].append(calls),
            on_call=lambda i=i: told[i].append(1),
        )
        for i in range(3)
    ]
    made = together.upscale_together(lrs, model, settings, seen)
    for lr, found in zip(lrs, made, strict=True):
        alone = upscale_tensor(lr, model, settings[0])
        torch.testing.assert_close(found.image, alone.image, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.attention, alone.attention)
        assert (found.planned_calls, found.calls) == (alone.planned_calls, alone.calls)
    assert [said[0] for said in told] == [one.calls for one in made]
    assert [len(said) - 1 for said in told] == [one.calls for one in made]
    assert (made[0].image - made[1].image).abs().max() > 0.1


def test_a_network_call_takes_the_windows_of_all():
    model = fake_model()
    settings = resolve(UpscaleOptions(denoise=0.0, steps=4, attention=None), model)
    before = model.backbone.calls
    made = together.upscale_together(pictures(4), model, [settings] * 4, [Observer()] * 4)
    assert model.backbone.calls - before < sum(one.calls for one in made)


def test_what_decides_more_than_rounding_goes_alone():
    model = fake_model()
    usual = together.common_settings(model, resolve(UpscaleOptions(denoise=0.0), model))
    assert usual is not None
    other = resolve(UpscaleOptions(denoise=0.0, fidelity=0.7), model)
    assert together.common_settings(model, other) == usual
    for alone in (
        {"exact": True}, {"fidelity": 1.0}, {"attention": "edge"}, {"budget": 0.5}, {"scale": 3.0},
        {"scale": 8.0}, {"block": 0, "faithful": True}, {"block": 256},
    ):  # fmt: skip
        settings = resolve(UpscaleOptions(denoise=0.0, **alone), model)
        assert together.common_settings(model, settings) is None, alone


def test_neighbours_of_one_size_are_grouped_and_no_group_is_too_large():
    model = fake_model()
    sizes = [(900, 700), (160, 120), (160, 120), (120, 160), (9, 6), (9, 6), (9, 6)]
    items = [Item(Path(str(i)), Path(str(i)), "PNG", w, h) for i, (w, h) in enumerate(sizes)]

    def lengths(**changes):
        return [len(g) for g in groups_of(items, model, UpscaleOptions(**changes))]

    assert lengths() == [1, 2, 1, 3]
    assert lengths(batch=2) == [1, 2, 1, 2, 1]
    assert lengths(exact=True) == [1] * 7
    many = [Item(Path(str(i)), Path(str(i)), "PNG", 160, 120) for i in range(20)]
    for group in groups_of(many, model, UpscaleOptions()):
        assert len(group) * 160 * 120 * model.scale**2 <= together.TOGETHER_PIXELS


def test_a_folder_in_step_equals_one_picture_at_a_time(yoda, tiny_checkpoint, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(4):
        save_photo(folder / f"{i}.png", 12, 20, seed=i)
    (folder / "4.png").write_bytes((folder / "3.png").read_bytes()[:200])  # its header is whole
    usual = ("upscale", folder, "--model", tiny_checkpoint, "--precision", "fp32")
    done = yoda(*usual, "-o", tmp_path / "step")
    assert done.code == 4
    assert "4 made, 0 there already, 1 failed" in done.err
    yoda(*usual, "-o", tmp_path / "one", "--batch", "1")
    for i in range(4):
        step, one = (
            np.asarray(Image.open(tmp_path / name / f"{i}.png"), float) for name in ("step", "one")
        )
        assert np.abs(step - one).max() <= 1
        assert np.mean((step - one) ** 2) < 255**2 / 1e6  # 60 dB
    bytes_of = {}
    for name, more in (("a", ()), ("b", ("--batch", "1"))):
        yoda(*usual, "-o", tmp_path / name, "--exact", *more)
        bytes_of[name] = [(tmp_path / name / f"{i}.png").read_bytes() for i in range(4)]
    assert bytes_of["a"] == bytes_of["b"]
