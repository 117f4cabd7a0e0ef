"""What a speed record comes down to."""

from yoda_cli.evaluation.figures import figures_of
from yoda_cli.evaluation.processes import NCNN, TORCH


def test_a_slow_peer_is_compared_at_the_size_it_was_measured_at():
    timings = [
        {"method": name, "width": width, "median": median}
        for name, width, median in (
            ("yoda", 64, 1.0), ("base", 64, 0.5), ("slow", 64, 10.0), ("quick", 64, 0.2),
            ("yoda", 128, 4.0), ("base", 128, 2.0), ("quick", 128, 1.0), ("yoda", 256, 16.0),
        )
    ]  # fmt: skip
    processes = [
        {"command": TORCH, "ratio": 1.0, "peak_mb": 600.0},
        {"command": NCNN, "ratio": 0.5, "peak_mb": 200.0},
    ]
    record = {"timings": timings, "processes": processes, "arithmetic": [], "gains": []}
    found = {(one["what"], one["over"]): one["ratio"] for one in figures_of(record, 128)}
    assert found == {
        (f"{NCNN}: processor", TORCH): 0.5,
        (f"{NCNN}: memory", TORCH): 200 / 600,
        ("yoda, in one process, 64×64", "slow"): 0.1,
        ("base, in one process, 64×64", "slow"): 0.05,
        ("yoda, in one process, 128×128", "quick"): 4.0,
        ("base, in one process, 128×128", "quick"): 2.0,
    }
