"""What a run of latents takes besides its diffusion, as forecasts know it."""

from dataclasses import replace

import pytest
from fakes import fake_model

from yoda_cli.models import calibration
from yoda_cli.tiling.cost import Costs
from yoda_cli.tiling.plan import Plan
from yoda_cli.upscaling import latent_clock
from yoda_cli.upscaling.latent_clock import DECODE, Clock

COSTS = Costs(call=0.0, pixel=0.001, encode=0.0, step=0.01)
PLAN = Plan((2, 1, 0), 0.5, [], True, False, 100)  # of 100 latents, none of them refined


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """A clock that stands still but when it is told; its model's costs are known."""
    now = [0.0]
    monkeypatch.setattr(latent_clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(calibration, "cache_folder", lambda: tmp_path)
    model = fake_model()
    calibration.forget()
    monkeypatch.setitem(calibration._KNOWN, calibration._key(model, "x"), COSTS)
    made = Clock(model, "x", refinements=3)

    def spend(what, seconds):
        with made.timing(what):
            now[0] += seconds

    made.spend = spend
    yield made
    calibration.forget()


def test_before_the_first_run_coding_tells_of_decoding(clock):
    clock.spend("planning", 1.0)
    clock.spend("coding", 2.0)
    assert clock.forecast(PLAN, COSTS) == pytest.approx(3 + 4 * 2 * DECODE)
    assert clock.forecast(PLAN, replace(COSTS, pace=5.0)) == pytest.approx(3 + 4 * 2 * DECODE)


def test_a_run_tells_the_next_what_surrounds_its_diffusion(clock):
    clock.spend("coding", 2.0)
    clock.spend("measuring", 7.0)
    with clock.timing("diffusion"):
        clock.spend("refining", 4.0)
        clock.spend("calls", 3.0)
    clock.spend("decoding", 5.0)
    clock.learn(PLAN, COSTS)
    known = calibration.known_costs(clock.model, "x")
    assert known.around * known.pace * PLAN.pixels == pytest.approx(2 + 4 + 5)
    assert clock.forecast(PLAN, known) == pytest.approx(11)
    calibration.forget()
    assert calibration.known_costs(clock.model, "x") == known, "kept in the cache folder"


def test_what_is_timed_gives_what_it_gave(clock):
    assert clock.timed("sums", lambda a, b: a + b)(1, b=2) == 3
    assert clock.seconds == {"sums": 0.0}
