"""Hostile pickles: one line of error, soon, in little memory; nothing in them runs."""

import sys

import pytest
from hostile.hostile_pickles import NAMED, outcomes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

LITTLE = 64 << 20  # bytes beyond what the reader has before
MANY_SETS = 512 << 20  # the most that the steps of a program may take, of a file of any size


def check(found):
    for case in found:
        title = case["case"]
        assert case["found"] == "read" or case["found"].startswith("WeightsError: "), case
        assert "\n" not in case["found"], case
        assert case["grown"] < (MANY_SETS if title == "many sets" else LITTLE), case
        assert case["seconds"] < 10, case


def test_a_pickle_takes_neither_memory_nor_time_nor_control():
    found = outcomes("named")
    assert [case["case"] for case in found] == list(NAMED)
    check(found)
    by_title = {case["case"]: case["found"] for case in found}
    assert [title for title, what in by_title.items() if what == "read"] == ["a key of many digits"]
    assert "would call os.system" in by_title["code"]
    assert "asks for more than the" in by_title["a storage of the old format"]
    assert "compressed" in by_title["a compressed program"]


def test_pickles_changed_by_chance_are_read_or_refused():
    found = outcomes(300, 0)
    assert len(found) == 300
    check(found)


@pytest.mark.slow
def test_ten_thousand_pickles_changed_by_chance():
    found = outcomes(10_000, 1000)
    assert len(found) == 10_000
    check(found)
