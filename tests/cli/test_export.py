"""``yoda export``: two graphs from which the loop of the documentation makes the same picture."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import save_photo
from PIL import Image

from yoda_cli.models import BACKBONES
from yoda_cli.models.checkpoint import read_header, save_checkpoint

API = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.mark.slow
def test_the_printed_loop_makes_the_picture_that_yoda_makes(yoda, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "photo.jpg", 26, 31)
    done = yoda("export", "-o", "onnx")
    assert done.code == 0, done.err
    assert done.out.split() == ["onnx/general_encoder.onnx", "onnx/general_denoiser.onnx"]
    (program,) = re.findall(r"```py\n(.*?)```", API.read_text("utf-8"), re.DOTALL)
    scope = {}
    exec(compile(program, "api.md", "exec"), scope)
    pictures = []
    for name, asked in (("plain", [0]), ("base", [1])):
        done = yoda(
            "upscale", "photo.jpg", "-o", f"{name}.png", "--denoise", "none", "--precision", "fp32",
            "--fidelity", *asked,
        )  # fmt: skip
        assert done.code == 0, done.err
        pictures.append(pixels(f"{name}.png"))
    made = pixels("onnx.png")
    ours, base = pictures
    assert made.shape == ours.shape
    # Another draw of the noise: apart from each other as two samples are, both with detail.
    apart = np.abs(made - ours).mean() / np.abs(ours - base).mean()
    assert 0.3 < apart < 1.6
    again = yoda("export", "-o", "onnx")
    assert again.code == 0, again.err  # files of ours are replaced
    Path("onnx/general_encoder.onnx").write_bytes(b"another")
    assert yoda("export", "-o", "onnx").code == 7


def pixels(name):
    with Image.open(name) as image:
        return np.asarray(image.convert("RGB"), np.float64)


def test_what_cannot_be_exported_is_refused(yoda, tmp_path, monkeypatch, tiny_checkpoint):
    done = yoda("export", "--format", "coreml")
    assert (done.code, "use onnx" in done.err) == (2, True)
    net = {f"body.{i}.{part}": torch.zeros(shape) for i, part, shape in [
        (0, "weight", (8, 3, 3, 3)), (0, "bias", (8,)), (1, "weight", (8,)),
        (2, "weight", (12, 8, 3, 3)), (2, "bias", (12,)),
    ]}  # fmt: skip
    torch.save(net, tmp_path / "compact.pth")
    done = yoda("export", "--model", tmp_path / "compact.pth", "-o", tmp_path / "out")
    assert done.code == 2
    assert "is no compact network" in done.err
    assert done.err.count("\n") == 1
    steered = tmp_path / "steered.safetensors"
    settings = {**read_header(tiny_checkpoint).net, "injection": True}
    state = BACKBONES["srdiff"](settings).state_dict()
    save_checkpoint(steered, backbone="srdiff", net=settings, state=state, card={})
    done = yoda("export", "--model", steered, "-o", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "steered reads what each step of --adaptive gained" in done.err
    assert yoda("export", "--model", "genral").code == 2
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    done = yoda("export", "--model", tiny_checkpoint, "-o", tmp_path / "out")
    assert done.code == 5
    assert "[onnx]" in done.err
    assert not (tmp_path / "out").exists()
