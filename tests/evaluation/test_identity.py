"""The metric of faces: the same places in truth and result, one mean, nothing without a face."""

import importlib.util
import math

import numpy as np
import pytest
import torch
from fakes import photo, save_photo

from yoda_cli.evaluation.metrics.identity import Identity, load_identity, pixels


def test_the_distance_is_the_mean_over_the_faces_of_the_truth():
    places = [(0, 0), (8, 4)]

    def find(picture):
        assert np.array_equal(picture, pixels(hr))  # in the truth, never in the result
        return iter(places)

    def describe(picture, place):
        top, left = place
        return picture[top : top + 4, left : left + 4].mean((0, 1)) / 255

    hr = photo(16, 16)
    sr = hr.clone()
    sr[..., 8:12, 4:8] = 0.5  # the second face alone is another
    expected = (hr - sr)[..., 8:12, 4:8].mean((0, 2, 3)).norm() / 2
    assert Identity(find, describe)(sr, hr) == pytest.approx(float(expected), abs=1e-2)
    assert Identity(find, describe)(hr, hr) == 0
    assert math.isnan(Identity(lambda picture: iter(()), describe)(sr, hr))


def test_without_the_extra_the_command_says_what_to_install(yoda, tmp_path, monkeypatch):
    there = importlib.util.find_spec
    load_identity.cache_clear()
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "dlib" else there(name)
    )
    (tmp_path / "set").mkdir()
    save_photo(tmp_path / "set" / "a.png", 64, 64)
    done = yoda(
        "bench", "--dataset", tmp_path / "set", "--peer", "bicubic", "--metric", "identity"
    )  # fmt: skip
    assert done.code == 5
    assert "[identity]" in done.err


def test_dlib_finds_no_face_in_noise():
    pytest.importorskip("dlib")
    load_identity.cache_clear()
    assert math.isnan(load_identity()(torch.zeros(1, 3, 64, 64), photo(64, 64)))
