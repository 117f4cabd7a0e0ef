"""What a release says of others keeps up with what it brings."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PARTS = {n: p for n, p in PROJECT["optional-dependencies"].items() if n != "test"}


def names(requirements):
    return [re.match(r"[\w-]+", requirement)[0] for requirement in requirements]


@pytest.mark.parametrize("part", ["always", *PARTS])
def test_the_notice_names_every_package_that_an_installation_brings(part):
    said = (ROOT / "NOTICE").read_text()
    section = re.search(rf"^  (extra )?{part} .*?(?=^  \w|\Z)", said, re.MULTILINE | re.DOTALL)[0]
    wanted = set(names(PARTS.get(part, PROJECT["dependencies"])))
    if part != "always":
        wanted -= set(names(PROJECT["dependencies"]))
    assert [name for name in wanted if not re.search(rf"(?<![\w-]){name}(?![\w-])", section)] == []


def test_the_device_report_names_every_optional_part():
    from yoda_cli.reports.doctor import EXTRAS

    assert set(EXTRAS) == set(PARTS) - {"docs"}


def test_the_page_of_platforms_names_every_optional_part():
    page = (ROOT / "docs" / "platforms.md").read_text()
    assert [name for name in [*PARTS, "test"] if f"| `{name}` |" not in page] == []
