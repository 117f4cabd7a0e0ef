"""The scripts that measure run as they are: small, on one picture."""

import importlib
import sys
from pathlib import Path

import pytest
from fakes import save_photo

SLOW = ("WEAKEST", "CELLS", "SHAPE_PIXELS", "BAND_VALUES", "RESIZE_ONLY", "TELLING_SECONDS",
        "AHEAD_PIXELS", "TOGETHER_PIXELS", "DECODE", "CANVAS_BYTES", "BYTES_PER_PIXEL")  # fmt: skip


@pytest.fixture
def benchmark(monkeypatch):
    """The module, imported as the command line imports it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    yield importlib.import_module("benchmark")
    for name in (
        "benchmark",
        "benchmark_photo",
        "device_report",
        "measure_constants",
        "measure_runs",
    ):
        sys.modules.pop(name, None)


def test_steps_of_every_latent_family_are_timed(benchmark):
    found = benchmark.steps(side=16, small=True)
    assert {name.split(",")[0] for name in found} == {"StableSR", "DiffBIR", "AddSR"}
    for row in found.values():
        assert row["parameters"] > 10_000
        assert row["processor seconds"] > 0
        assert row["peak GB"] > 0.05


def test_what_masks_leave_out_is_counted_for_every_latent_family(benchmark, tmp_path):
    path = save_photo(tmp_path / "a.png", 48, 64)
    (row,) = benchmark.photo_windows([path], ["stablesr-turbo", "addsr"]).values()
    assert row["addsr, 512: calls"] == 4
    assert row["addsr, 2048: calls"] > 4 * 9
    assert all(0 <= value < 1 for key, value in row.items() if key.endswith("left out"))


@pytest.mark.parametrize(
    "name",
    ["AGREED", "MIN_BLOCK", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def test_a_constant_is_tried_at_half_and_twice_its_value(benchmark, name):
    """One of each kind; what the figures are, nobody can know."""
    rows = importlib.import_module("measure_constants").table(name, small=True)
    assert list(rows) == ["half", "own", "twice"]
    assert all(rows["own"].keys() == row.keys() and row for row in rows.values())
    if name == "MIN_BLOCK":  # pixels of all blocks, of the picture's
        shares = [next(iter(row.values())) for row in rows.values()]
        assert shares == sorted(shares, reverse=True)
