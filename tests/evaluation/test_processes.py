"""Whole processes timed from outside: what is run, and that it is what a person would run."""

import subprocess
import sys

import pytest

from yoda_cli.config import UpscaleOptions
from yoda_cli.evaluation.processes import TORCH, commands_of, run_once


def test_what_is_timed_are_commands_that_work(tmp_path, tiny_checkpoint):
    from fakes import save_photo

    save_photo(tmp_path / "picture.png", 8, 8)
    options = UpscaleOptions(model=str(tiny_checkpoint), precision="fp32")
    commands = commands_of(options, tmp_path / "picture.png", tmp_path)
    assert TORCH in commands
    expected = {"python": 0, "a path that is not there": 3, "yoda upscale, base alone": 0}
    for name, code in expected.items():
        done = subprocess.run(commands[name], capture_output=True, check=False)
        assert done.returncode == code, done.stderr
    assert (tmp_path / "result.png").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no wait4")
def test_time_of_the_processor_is_told_from_waiting():
    run = run_once([sys.executable, "-c", "import time; time.sleep(1)"])
    assert run.seconds > 1
    assert run.cpu_seconds < 0.8
    assert 3 < run.peak_mb < 100  # not that of the process that asks


def test_every_timed_command_is_told_the_damage(tmp_path):
    from yoda_cli.evaluation.processes import usual_of

    for denoise, word in ((None, "auto"), (0.5, "0.5")):
        commands = commands_of(UpscaleOptions(denoise=denoise), tmp_path / "a.png", tmp_path)
        for name, command in commands.items():
            if name.startswith("yoda upscale"):
                assert command[command.index("--denoise") + 1] == word, name
        assert ["--denoise", word] == usual_of(UpscaleOptions(denoise=denoise))[6:8]


def test_a_picture_that_is_too_small_for_a_measurement_is_mirrored_not_enlarged():
    import torch

    from yoda_cli.evaluation.speed import fitted

    sample = torch.rand(1, 3, 6, 8)
    found = fitted(sample, 15, 20)
    assert found.shape == (1, 3, 15, 20)
    torch.testing.assert_close(found[..., :6, :8], sample)
    torch.testing.assert_close(found[..., 6:12, :8], sample.flip(-2))
    torch.testing.assert_close(found[..., 12:, 16:], sample[..., :3, :4])
    assert fitted(sample, 3, 5).shape == (1, 3, 3, 5)
    both = fitted(torch.rand(1, 3, 64, 64), 40, 100)
    assert both.min() >= 0
    assert both.max() <= 1
