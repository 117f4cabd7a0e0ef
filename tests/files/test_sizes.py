"""Sizes as a person reads them."""

import pytest

from yoda_cli.files import size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.0 MB"),
        (300_000, "0.3 MB"),
        (25_400_000, "25 MB"),
        (999e6, "999 MB"),
        (5.5e9, "5.5 GB"),
    ],
)
def test_small_sizes_are_not_nought(count, text):
    assert size_text(count) == text
