"""The Python API takes pictures in every usual form and gives what the command line gives."""

import numpy as np
import pytest
import torch
from fakes import save_photo
from PIL import Image

import yoda_cli
from yoda_cli.errors import NotFoundError, UsageError


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
        made = yoda_cli.upscale(form, options).image
        pixels = (made[0] * 255 + 0.5).floor().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(pixels, expected), type(form)


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
