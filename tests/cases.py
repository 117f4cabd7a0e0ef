"""Which of many like cases every run tries."""

import pytest


def one_by_default(cases):
    """The first case in every run, the others among the slow ones."""
    first, *rest = cases
    others = [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in rest
    ]
    return [first, *others]


#: Names of files that are legal, and hard to write and to print.
LONG = "ü" * 125 + "x.png"
NAMES = ["a b.png", "☃🎈.png", "new\nline.png", "-dash.png", "%s{x}.png", LONG]
