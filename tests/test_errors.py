"""What is said of an optional part that is missing."""

import importlib.metadata

import pytest

from yoda_cli.errors import DISTRIBUTION, WeightsError, how_to_install, need


class Installed:
    """A distribution whose origin is known."""

    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.origin


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (None, "pip install 'yoda-sr[vips]'"),
        (
            '{"url": "file:///home/me/yo%20da", "dir_info": {}}',
            "pip install '/home/me/yo da[vips]'",
        ),
        (
            '{"url": "file:///home/me/yoda", "dir_info": {"editable": true}}',
            "pip install -e '/home/me/yoda[vips]'",
        ),
        (
            '{"url": "https://x.org/y.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            "pip install 'yoda-sr[vips] @ git+https://x.org/y.git@abc'",
        ),
        (
            '{"url": "file:///tmp/yoda.whl", "archive_info": {}}',
            "pip install 'yoda-sr[vips] @ file:///tmp/yoda.whl'",
        ),
    ],
)
def test_the_hint_names_the_place_that_this_copy_came_from(monkeypatch, origin, said):
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(origin))
    assert how_to_install("vips") == said


def test_a_checkout_that_was_never_installed_names_its_folder(monkeypatch, request):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert how_to_install() == f"pip install '{request.config.rootpath}'"


def test_a_missing_part_is_an_error_with_the_hint():
    with pytest.raises(WeightsError, match=r"no_such_part is not installed: pip install .*\[x\]"):
        need("no_such_part", "x")


def test_the_distribution_is_the_project(request):
    import tomllib

    text = (request.config.rootpath / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["name"] == DISTRIBUTION
