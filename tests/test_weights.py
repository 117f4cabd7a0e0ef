"""The registry: complete, consistent with the checkpoints, found from a checkout and a wheel."""

import pytest

from yoda_cli import weights
from yoda_cli.checkpoint import read_header
from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.weights import find_entry, load_registry, registry_path


def test_every_model_of_the_registry_is_what_its_checkpoint_says():
    for entry in load_registry().values():
        header = read_header(entry.path)
        assert header.backbone == entry.backbone
        assert header.net["scale"] == entry.scale
        assert header.card["licence"] == entry.licence
        assert entry.path.stat().st_size <= 16e6


def test_unknown_models_are_named_with_the_nearest_one():
    with pytest.raises(UsageError, match=r"unknown model 'genral'; did you mean general\?"):
        find_entry("genral")
    with pytest.raises(UsageError, match="there are general"):
        find_entry("xyz")


def test_the_registry_is_found_in_a_checkout_and_in_an_installed_package(tmp_path, monkeypatch):
    assert registry_path().name == "weights.toml"
    package = tmp_path / "yoda_cli"
    package.mkdir()
    monkeypatch.setattr(weights, "PACKAGE", package)
    with pytest.raises(WeightsError, match="incomplete"):
        registry_path()
    (tmp_path / "weights.toml").touch()
    assert registry_path() == tmp_path / "weights.toml"
    (package / "weights.toml").touch()
    assert registry_path() == package / "weights.toml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[models.a]\nsummary = 'x'\n", "unknown or missing keys"),
        ("[models", "cannot be read"),
        ("[model.a]\n", "expected the table"),
    ],
)
def test_a_wrong_registry_is_refused(tmp_path, text, message):
    path = tmp_path / "weights.toml"
    path.write_text(text)
    with pytest.raises(WeightsError, match=message):
        load_registry(path)


def test_a_missing_bundled_file_says_that_the_installation_is_incomplete(tmp_path, monkeypatch):
    entry = find_entry("general")
    monkeypatch.setattr(weights, "PACKAGE", tmp_path)
    with pytest.raises(WeightsError, match="incomplete"):
        _ = entry.path
