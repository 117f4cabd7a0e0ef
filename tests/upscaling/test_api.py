"""The Python API takes pictures in every usual form and gives what the command line gives."""

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import torch
from broken import short_png
from fakes import save_photo
from PIL import Image

import yoda_cli
from yoda_cli.config import OptionValues
from yoda_cli.errors import DeviceError, InputError, NotFoundError, UsageError
from yoda_cli.upscaling import forecast


@pytest.fixture
def options(tiny_checkpoint):
    return yoda_cli.UpscaleOptions(model=str(tiny_checkpoint), precision="fp32", device="cpu")


def test_every_form_of_a_picture_gives_the_command_lines_pixels(options, tmp_path, yoda):
    path = save_photo(tmp_path / "in.png", 9, 13)
    yoda(
        "upscale", path, "-o", tmp_path / "out.png", "--model", options.model, "--precision", "fp32"
    )
    expected = np.asarray(Image.open(tmp_path / "out.png"))
    image = Image.open(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255
    for form in (path, str(path), path.read_bytes(), image, array, tensor):
        made = yoda_cli.upscale(form, options)
        assert np.array_equal(made.array, expected), type(form)
        assert np.array_equal(np.asarray(made.image), expected)
        assert made.tensor.shape == (1, 3, 36, 52)


def test_a_result_beyond_the_bound_is_refused_before_a_pixel_is_decoded(
    options, tmp_path, monkeypatch
):
    path = save_photo(tmp_path / "in.png", 9, 13)
    forms = (path, path.read_bytes(), np.asarray(Image.open(path)), torch.zeros(1, 3, 9, 13))
    for form in forms:
        yoda_cli.upscale(form, options, max_pixels=36 * 52)
    monkeypatch.setattr("yoda_cli.upscaling.api.read_picture", lambda *_: pytest.fail("decoded"))
    for form in forms:
        with pytest.raises(InputError, match="52×36 pixels; the bound is 1,871"):
            yoda_cli.upscale(form, options, max_pixels=36 * 52 - 1)
    monkeypatch.setattr(forecast, "free_memory_bytes", lambda: 10_000)
    with pytest.raises(DeviceError, match="GB are free"):
        yoda_cli.upscale(forms[-1], options)


def test_what_is_left_of_a_damaged_picture_is_enlarged_when_that_is_asked_for(options):
    with pytest.raises(InputError, match="damaged"):
        yoda_cli.upscale(short_png(), options)
    made = yoda_cli.upscale(short_png(), options, accept_damaged=True)
    assert made.image.size == (96, 80)
    assert made.record["notices"][0].startswith("damaged: ")
    assert yoda_cli.upscale(torch.zeros(1, 3, 5, 5), options).record["notices"] == []


def test_a_map_is_on_the_pictures_grid(options, tmp_path):
    found = yoda_cli.attention_map(save_photo(tmp_path / "in.png", 9, 13), options)
    assert found.shape == (1, 1, 9, 13)
    assert 0 <= found.min() <= found.max() <= 1


def test_what_is_no_picture_is_refused(options, tmp_path):
    for wrong in (
        np.zeros((3, 4)),
        np.zeros((3, 4, 3)),
        torch.zeros(3, 4, 4),
        torch.zeros(1, 3, 0, 4),
    ):
        with pytest.raises(ValueError, match="must be"):
            yoda_cli.upscale(wrong, options)
    with pytest.raises(TypeError):
        yoda_cli.upscale(None, options)
    with pytest.raises(NotFoundError):
        yoda_cli.upscale(tmp_path / "nosuch.png", options)
    with pytest.raises(UsageError):
        yoda_cli.upscale(torch.zeros(1, 3, 4, 4), yoda_cli.UpscaleOptions(scale=-1))


def test_keywords_are_the_options(options, tmp_path):
    path = save_photo(tmp_path / "in.png", 8, 6)
    made = yoda_cli.upscale(path, options, scale=2, seed=3)
    assert made.image.size == (12, 16)
    assert made.record["seed"] == 3
    with pytest.raises(TypeError):
        yoda_cli.upscale(path, options, scael=2)
    fields = {field.name for field in dataclasses.fields(yoda_cli.UpscaleOptions)}
    assert set(OptionValues.__annotations__) == fields


def test_a_result_is_saved_with_its_sources_metadata_and_says_how_it_was_made(options, tmp_path):
    path = tmp_path / "in.jpg"
    Image.open(save_photo(tmp_path / "in.png", 8, 6)).save(path, dpi=(300, 300))
    made = yoda_cli.upscale(path, options)
    saved = made.save(tmp_path / "out.png")
    with Image.open(saved) as image:
        assert image.size == (24, 32)
        assert round(image.info["dpi"][0]) == 300
        assert json.loads(image.info["yoda"])["model"] == "tiny"
    assert made.save(str(tmp_path / "out.jpg"), quality=80).is_file()
    with pytest.raises(yoda_cli.OutputError, match="no known picture format"):
        made.save(tmp_path / "out")


def test_a_result_is_a_picture_in_a_notebook_and_a_line_elsewhere(options):
    made = yoda_cli.upscale(torch.zeros(1, 3, 5, 6), options)
    with Image.open(BytesIO(made._repr_png_())) as shown:
        assert shown.size == (24, 20)
    assert re.fullmatch(r"Upscaled\(24×20, model='.*tiny.*', \d+\.\d s\)", repr(made))


def test_progress_counts_every_tile(options, tmp_path):
    seen = []
    path = save_photo(tmp_path / "in.png", 9, 13)
    made = yoda_cli.upscale(path, options, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (made.record["calls"], made.record["planned_calls"])
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))


def test_an_upscaler_is_shared_by_threads_and_gives_what_the_function_gives(options, tmp_path):
    paths = [save_photo(tmp_path / f"{i}.png", 7, 9, seed=i) for i in range(4)]
    enlarge = yoda_cli.Upscaler(options.model, precision="fp32", device="cpu", seed=5)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(enlarge, paths))
    for path, one in zip(paths, made, strict=True):
        assert np.array_equal(one.array, yoda_cli.upscale(path, options, seed=5).array)
    assert enlarge(paths[0], scale=2).image.size == (18, 14)
    with pytest.raises(UsageError, match="model is settled"):
        enlarge(paths[0], model="face")


def test_every_error_of_the_tree_is_public():
    from yoda_cli import errors

    for error in [errors.YodaError, *errors.YodaError.__subclasses__()]:
        if error.__module__ == errors.__name__:
            assert getattr(yoda_cli, error.__name__) is error


def test_words_of_the_command_line_are_understood_and_others_refused(tmp_path):
    save_photo(tmp_path / "a.png", 8, 10)
    strengths = [
        yoda_cli.upscale(tmp_path / "a.png", steps=1, denoise=word).record["denoise"]
        for word in ("none", "light", 0.3)
    ]
    assert strengths == [0.0, 0.3, 0.3]
    with pytest.raises(UsageError, match="denoise 'lihgt' is not allowed; give auto, none"):
        yoda_cli.upscale(tmp_path / "a.png", denoise="lihgt")


def test_an_upscaler_checks_what_comes_with_a_picture(options, tmp_path):
    save_photo(tmp_path / "a.png", 8, 10)
    enlarge = yoda_cli.Upscaler(options.model)
    with pytest.raises(UsageError, match="fidelity"):
        enlarge(tmp_path / "a.png", fidelity=7.0)
