"""How far a picture and a run are, and that one forecast holds for all passes and frames."""

from pathlib import Path

import pytest
from fakes import fake_model, photo

from yoda_cli.cli._render_bars import Overall, spell
from yoda_cli.config import UpscaleOptions
from yoda_cli.upscaling.pipeline import foresee, plan_picture, upscale_tensor
from yoda_cli.upscaling.progress import PictureProgress
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer


@pytest.mark.parametrize(("scale", "passes"), [(4.0, 1), (8.0, 2)])
def test_the_first_forecast_is_for_all_passes_and_the_result_keeps_it(scale, passes):
    model, lr, heard = fake_model(), photo(16, 16), []
    settings = resolve(UpscaleOptions(scale=scale, denoise=0.0), model)
    observer = Observer(on_plan=lambda calls, seconds: heard.append((calls, seconds)))
    result = upscale_tensor(lr, model, settings, observer)
    assert len(heard) == passes
    assert result.forecast_seconds == pytest.approx(heard[0][1])
    ahead = foresee(plan_picture(lr, model, settings), model, settings)
    assert ahead.calls == heard[0][0]
    assert ahead.seconds == pytest.approx(heard[0][1], rel=0.5)  # by what the machine learned
    assert (ahead.calls > heard[-1][0]) == (passes > 1)


def test_a_picture_of_two_frames_in_two_passes_is_never_undone():
    shares, told = [], []
    progress = PictureProgress(2, 2, shares.append, lambda *said: told.append(said))
    for left, now in [(10, 2), (7, 7)] * 2:  # eight were foreseen after the first two, seven came
        progress.plan(left, left / 10)
        for _ in range(now):
            progress.call()
    assert told == [(20, 2.0)]
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert progress.observer.on_call == progress.call


def test_a_run_counts_pixels_and_says_what_is_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("yoda_cli.cli._render_bars.time.monotonic", lambda: now[0])
    large, small, bad = map(Path, ("large.png", "small.png", "bad.png"))
    run = Overall({large: 700, small: 200, bad: 100}, "")
    assert (run.left, run.count) == ("", "0 of 3")
    now[0] = 9.0
    run.foresee(large, 10, 70.0)
    assert run.left == "2 min left"
    now[0] = 44.0
    run.at(large, 0.5)
    assert run.share == pytest.approx(0.35)
    assert run.left == "65 s left"
    run.end(large)
    run.at(large, 0.2)  # a late word of a worker
    assert run.share == pytest.approx(0.7)
    run.end(bad)
    run.at(small, 0.5)
    assert (run.share, run.count) == (pytest.approx(0.9), "2 of 3")
    run.end(small)
    assert (run.share, run.left) == (1.0, "writing")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (42, "42 s"), (540, "9 min"), (3900, "65 min"), (7500, "2 h 5 min")],
)
def test_times_are_said_as_a_person_would(seconds, words):
    assert spell(seconds) == words
