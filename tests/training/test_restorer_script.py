"""The script that teaches the restorer: what it keeps of the teacher, and what it writes."""

import runpy
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import save_photo
from torch import nn

import yoda_cli
from yoda_cli.models.checkpoint import load_checkpoint, read_header
from yoda_cli.models.image_networks import image_network

SCRIPT = Path(yoda_cli.__file__).parent.parent / "scripts" / "restorer.py"
CHECKPOINT = Path(yoda_cli.__file__).parent / "checkpoints" / "general.safetensors"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def published(script):
    """Tensors of the teacher by their published names."""
    torch.manual_seed(0)
    state = script["Teacher"]().state_dict()
    return {key.replace(".RDB", ".rdb"): 0.7 * value for key, value in state.items()}


@pytest.fixture(scope="module")
def teacher_file(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "x4plus.pth"
    torch.save({"params_ema": published}, path)
    return path


@torch.inference_mode()
def test_the_teacher_is_the_network_that_spandrel_knows(script, published, teacher_file):
    lr = torch.rand(1, 3, 12, 10)
    picture, features = script["load_teacher"](teacher_file)(lr)
    assert features.shape == (1, 64, 12, 10)
    expected = image_network(published, "x4plus")(lr)
    torch.testing.assert_close(picture.clamp(0, 1), expected.clamp(0, 1), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_what_is_kept_of_it_computes_what_it_computes_with_those_blocks(script, teacher_file):
    teacher = script["load_teacher"](teacher_file)
    net, lr = script["pruned"](teacher), torch.rand(1, 3, 12, 10)
    teacher.body = nn.ModuleList(teacher.body[i] for i in script["KEPT"])
    torch.testing.assert_close(net.features(lr), teacher(lr)[1])


def test_crops_for_the_tail_are_of_the_same_place(script):
    small = torch.arange(64 * 64).view(1, 1, 64, 64) // 64 + torch.zeros(2, 3, 64, 64).long()
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    pairs = script["Pairs"](small.byte(), large.byte(), large.byte(), small.half())
    features, picture = next(script["tail_crops"](pairs, torch.device("cpu")))
    assert features.shape == (8, 3, 32, 32)
    assert picture.shape == (8, 3, 128, 128)
    torch.testing.assert_close(picture[..., ::4, ::4] * 255, features)
    batch = next(script["batches"](pairs, torch.device("cpu")))
    assert batch.lr.shape == (5, 3, 64, 64)
    torch.testing.assert_close(batch.hr[..., ::4, ::4], batch.lr)
    torch.testing.assert_close(batch.features / 255, batch.lr)


def test_the_tail_learns_alone(script):
    torch.manual_seed(0)
    net = script["Restorer"](1)
    features = torch.randn(6, 64, 64, 64)
    picture = F.pixel_shuffle(features[:, :48], 4).sigmoid()
    pairs = script["Pairs"](picture, picture, (picture * 255).byte(), features.half())
    before = {k: v.clone() for k, v in net.state_dict().items()}
    errors = []
    for steps in (0, 30):
        script["teach_tail"](net, pairs, torch.float32, steps)
        with torch.no_grad():
            errors.append(float((net.enlarge(features) - picture).abs().mean()))
    assert errors[1] < 0.8 * errors[0]
    moved = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert {k.split(".")[0] for k in moved} == {"conv_up", "conv_hr", "conv_last"}


@pytest.mark.slow
def test_a_run_writes_the_checkpoint_with_the_restorer_and_where_it_is_from(
    teacher_file, tmp_path, monkeypatch
):
    for i in range(2):
        save_photo(tmp_path / f"{i}.png", 270, 270, seed=i)
    out = tmp_path / "out.safetensors"
    arguments = [teacher_file, tmp_path, CHECKPOINT, out, "--pairs", 4]
    arguments += ["--minutes", 0.02, "--tail-steps", 2]
    monkeypatch.setattr(sys, "argv", ["restorer.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    before, after = (cast(nn.Module, load_checkpoint(p)[0]).state_dict() for p in (CHECKPOINT, out))
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith("restorer.") for key in changed)
    assert "Xintao Wang" in read_header(out).card["restorer"]["distilled_from"]
    assert all(np.isfinite(value.numpy()).all() for value in after.values())
