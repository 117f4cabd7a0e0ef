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
