"""Servers that lie, drip or talk nonsense: the right file or one line of error, soon."""

import contextlib
import gc
import hashlib
import json
import random
import time

import faults
import pytest
from hostile import servers

from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.weights import Cache, FileEntry, fetch
from yoda_cli.weights.network import Limits

# urllib3 leaves the connection of an answer with two lengths to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <socket\.socket:pytest.PytestUnraisableExceptionWarning"
)
BODY = random.Random(0).randbytes(3000)
SHA = hashlib.sha256(BODY).hexdigest()
QUICK = Limits(connect=1, read=0.5, attempts=3, pause=0.001, longest_pause=0.002,
               slow_bytes_per_second=1000, slow_after=0.4)  # fmt: skip


@pytest.fixture
def site():
    with faults.serving(BODY) as served:
        yield served


def get(site, folder, *, known=True):
    sha = SHA if known else ""
    entry = FileEntry("file.bin", "pth", "", "", urls=("http://x/",), sha256=sha)
    return fetch(entry, [site.url], Cache(folder), QUICK)


def test_how_long_a_slow_server_is_borne_is_a_setting(monkeypatch):
    assert Limits.asked() == Limits()
    monkeypatch.setenv("YODA_SLOW_SECONDS", "600")
    assert Limits.asked() == Limits(slow_after=600.0)
    for wrong in ("0", "-1", "nan", "inf", "a while"):
        monkeypatch.setenv("YODA_SLOW_SECONDS", wrong)
        with pytest.raises(UsageError, match="YODA_SLOW_SECONDS"):
            Limits.asked()


def test_a_server_below_a_kilobyte_a_second_for_a_minute_is_a_failure():
    assert (Limits().slow_bytes_per_second, Limits().slow_after) == (1000, 60)


DRIPS = {
    "from the first byte": servers.drip(0.05),
    "after a good start": servers.drip(0.05, first=2000),
    "in chunks": servers.drip(0.05, chunked=True),
    "in its headers": servers.drip_headers(0.05),
}


@pytest.mark.parametrize("name", DRIPS)
def test_a_server_that_drips_is_given_up(site, tmp_path, name):
    site.script = [DRIPS[name]] * 3
    began = time.monotonic()
    with pytest.raises(WeightsError, match=r"too slow|no answer in"):
        get(site, tmp_path)
    assert time.monotonic() - began < 5
    assert len(site.requests) == 1


def test_what_a_slow_server_sent_is_kept_for_the_next_time(site, tmp_path):
    site.script = [servers.drip(0.05, first=2000)]
    with pytest.raises(WeightsError, match="too slow"):
        get(site, tmp_path)
    assert get(site, tmp_path).read_bytes() == BODY
    assert int(site.requests[1][1]["Range"][6:-1]) > 2000


def begun(folder, site, done, **facts):
    """A cache with the first bytes of the file."""
    cache = Cache(folder)
    cache.prepare()
    cache.partial("file.bin").write_bytes(BODY[:done])
    facts = {"url": site.url, "etag": '"v1"', "synced": done, **facts}
    cache.partial("file.bin.json").write_text(json.dumps(facts))


def test_half_a_file_is_not_pinned_because_a_server_says_that_it_is_whole(site, tmp_path):
    begun(tmp_path, site, 1500)
    site.script = [faults.status(416, Content_Range="bytes */1500")]
    assert get(site, tmp_path, known=False).read_bytes() == BODY


def test_a_file_that_was_whole_is_kept_if_its_length_was_known(site, tmp_path):
    begun(tmp_path, site, 3000, total=3000)
    site.script = [faults.status(416, Content_Range="bytes */3000")]
    assert get(site, tmp_path, known=False).read_bytes() == BODY
    assert len(site.requests) == 1


def part(start, end, total):
    span = f"bytes {start}-{end - 1}/{total}"
    return lambda h: faults.send(h, 206, BODY[start:end], Content_Range=span, ETag='"v1"')


@pytest.mark.parametrize("known", [True, False], ids=["hash known", "hash unknown"])
@pytest.mark.parametrize("total", [3000, "*", 2000, 5000])
def test_a_part_that_is_not_the_rest_is_not_taken_for_it(site, tmp_path, total, known):
    begun(tmp_path, site, 1000, total=3000)
    site.script = [part(1000, 2000, total)]
    if total == "*":  # nothing says that more is missing but the length that was told before
        site.script *= 2
    assert get(site, tmp_path, known=known).read_bytes() == BODY


def check(count, first, folder, *, known):
    """Each case has a server of its own mind; what is kept is the file that was asked for."""
    kept = 0
    with faults.serving(BODY) as site:
        for seed in range(first, first + count):
            chance = random.Random(seed)
            answers = range(chance.randint(1, 5))
            site.script = [servers.by_chance(chance, honest_wholes=not known) for _ in answers]
            began = time.monotonic()
            with contextlib.suppress(WeightsError):
                path = get(site, folder / str(seed), known=known)
                assert path.read_bytes() == BODY, seed
                kept += 1
            assert time.monotonic() - began < 20, seed
    gc.collect()
    assert kept > count / 10


@pytest.mark.parametrize("known", [True, False], ids=["hash known", "hash unknown"])
def test_answers_made_by_chance_yield_the_file_or_an_error(tmp_path, known):
    check(150, 0, tmp_path, known=known)


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["hash known", "hash unknown"])
def test_ten_thousand_answers_made_by_chance(tmp_path, known):
    check(5_000, 1000, tmp_path, known=known)
