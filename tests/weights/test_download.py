"""Downloads against a server that misbehaves: the right file or one clear error, soon."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import faults
import pytest

from yoda_cli.errors import WeightsError
from yoda_cli.files import MACHINE
from yoda_cli.weights import (
    Cache,
    FileEntry,
    Watch,
    fetch,
)
from yoda_cli.weights import transfer as transfers
from yoda_cli.weights.cache import STALE_SECONDS, private
from yoda_cli.weights.network import (
    Limits,
    open_url,
    refusal,
    token_for,
)
from yoda_cli.weights.tidying import remove, sweep

BODY = bytes(range(256)) * 1200  # 307,200 bytes
SHA = hashlib.sha256(BODY).hexdigest()
QUICK = Limits(connect=2, read=1, attempts=3, pause=0.01, longest_pause=0.05)


@pytest.fixture
def site():
    with faults.serving(BODY) as served:
        yield served


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def entry(**facts):
    settings = {"sha256": SHA, "bytes": len(BODY), **facts}
    return FileEntry("file.bin", "pth", "CC0", "here", urls=("http://x/",), **settings)


def get(site, cache, limits=QUICK, watch=None, *, urls=None, use_lock=True, **facts):
    return fetch(entry(**facts), urls or [site.url], cache, limits, watch, use_lock=use_lock)


def test_a_file_is_fetched_once_and_then_trusted_without_the_network(site, cache):
    path = get(site, cache)
    assert path.read_bytes() == BODY
    assert path == cache.folder / "file.bin"
    assert (cache.root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172")
    assert get(site, cache) == path
    assert len(site.requests) == 1
    assert cache.partials() == []


@pytest.mark.parametrize("known", [True, False], ids=["hash known", "hash unknown"])
@pytest.mark.parametrize("at", [0, 1, 1000, 65536, 150_000, len(BODY) - 1])
def test_a_cut_connection_is_resumed(site, cache, at, known):
    site.script = [faults.cut(at)]
    facts = {} if known else {"sha256": "", "bytes": None}
    assert get(site, cache, **facts).read_bytes() == BODY
    if at > 0:  # what came is not asked for again
        assert site.requests[1][1]["Range"] == f"bytes={at}-"
        assert site.requests[1][1]["If-Range"] == '"v1"'


FAULTS = {
    "many cuts": [faults.cut(20_000)] * 12,
    "200 answered to a Range": [faults.cut(5000), faults.ignore_range],
    "another ETag on resume": [faults.cut(5000), faults.other_etag_206],
    "a stall": [faults.stall(3)],
    "429 then good": [faults.status(429, Retry_After="1000")],
    "500 then good": [faults.status(500), faults.status(503)],
    "a compressed body": [faults.gzipped],
    "a redirect on the same host": [faults.redirect("/elsewhere.bin")],
    "wrong length, then good": [faults.wrong_length, faults.honest],
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_that_pass_yield_the_right_file(site, cache, name):
    site.script = list(FAULTS[name])
    urls = [site.url, site.url + "?mirror"]
    assert get(site, cache, urls=urls).read_bytes() == BODY
    assert cache.partials() == []


ERRORS = {
    "wrong bytes": ([faults.wrong_bytes] * 9, "SHA-256"),
    "wrong length": ([faults.wrong_length] * 9, "offers"),
    "always cut at once": ([faults.cut(0)] * 9, "cut"),
    "always 500": ([faults.status(500)] * 9, "answered 500"),
    "404": ([faults.status(404)], "answered 404"),
    "silent": ([faults.stall(1.5)] * 9, "silent"),
    "a redirect loop": ([faults.redirect("/file.bin")] * 30, "circle"),
    "file://": ([faults.redirect("file:///etc/passwd")], "not an http"),
    "a private address": ([faults.redirect("http://169.254.169.254/x")], "private"),
    "another local host": ([faults.redirect("http://localhost:9/x")], "private"),
    "garbage": ([lambda h: h.wfile.write(b"\0\1\2 what\r\n\r\n")] * 9, "could not be downloaded"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_faults_that_stay_end_in_one_line(site, cache, name):
    site.script, message = list(ERRORS[name][0]), ERRORS[name][1]
    began = time.monotonic()
    limits = Limits(connect=2, read=0.5, attempts=3, pause=0.01, longest_pause=0.05)
    with pytest.raises(WeightsError, match=message) as caught:
        get(site, cache, limits)
    assert time.monotonic() - began < 10
    assert "\n" not in str(caught.value)
    assert not (cache.folder / "file.bin").exists()


def test_a_body_that_nothing_vouches_for_is_not_trusted(site, cache):
    site.script = [faults.unframed_cut] * 9
    with pytest.raises(WeightsError, match="how long the file is"):
        get(site, cache, sha256="", bytes=None)
    assert not (cache.folder / "file.bin").exists()


def endless(handler):
    """Chunks that never end, and no word of how many there will be."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(100_000):
        handler.wfile.write(b"4000\r\n" + bytes(1 << 14) + b"\r\n")


def test_a_body_without_end_is_cut_off(site, cache, monkeypatch):
    monkeypatch.setattr(transfers, "MAX_UNKNOWN_BYTES", 3_000_000)
    site.script = [endless] * 9
    with pytest.raises(WeightsError, match="more than 3,000,000 bytes came"):
        get(site, cache, sha256="", bytes=None)
    with pytest.raises(WeightsError, match="more than 307,200 bytes came"):
        get(site, cache)
    assert cache.partials() == []


def test_the_next_address_is_tried(site, cache):
    site.script = [faults.status(404)]
    assert get(site, cache, urls=[site.url, site.url + "?mirror"]).read_bytes() == BODY
    assert site.requests[1][0].endswith("?mirror")


def test_a_slow_drip_is_given_up(site, cache):
    site.pace = 0.2
    limits = Limits(1, 2, 1, slow_after=0.3, slow_bytes_per_second=1e9)
    with pytest.raises(WeightsError, match=r"silent for too long|too slow"):
        get(site, cache, limits)


def test_an_unknown_hash_is_pinned_said_and_kept(site, cache):
    said = []
    free = {"sha256": "", "bytes": None}
    get(site, cache, watch=Watch(said.append), **free)
    assert any(f"pinned SHA-256 {SHA}" in line for line in said)
    remove(entry(**free), cache, forget=False)
    site.body, site.etag = b"x" * 1000, '"v2"'
    with pytest.raises(WeightsError, match="first download"):
        get(site, cache, **free)
    remove(entry(**free), cache, forget=True)
    assert get(site, cache, **free).read_bytes() == b"x" * 1000


@pytest.mark.parametrize("facts", [{"md5_prefix": "ffffff"}, {"sha256_prefix": "00000000"}])
def test_a_published_part_of_a_hash_is_checked(site, cache, facts):
    with pytest.raises(WeightsError, match="does not begin with"):
        get(site, cache, sha256="", **facts)


def test_a_changed_file_is_found_and_fetched_again(site, cache):
    path = get(site, cache)
    path.write_bytes(b"y" + BODY[1:])
    said = []
    assert get(site, cache, watch=Watch(said.append)).read_bytes() == BODY
    assert "is damaged" in said[0]


def test_a_touched_file_is_hashed_again_and_kept(site, cache):
    path = get(site, cache)
    os.utime(path, (1, 1))
    assert get(site, cache) == path
    assert len(site.requests) == 1


def test_offline_opens_no_socket(site, cache, monkeypatch):
    for name in ("YODA_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            with pytest.raises(WeightsError, match=r"offline; online: yoda weights pull file\.bin"):
                get(site, cache)
            with pytest.raises(WeightsError, match="offline"):
                open_url(None, site.url, {}, QUICK)
    assert site.requests == []


def test_a_full_disk_is_said_before_anything_is_fetched(site, cache, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(transfers.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WeightsError, match=r"needs 0 MB and .* has 0 MB free; name another"):
        get(site, cache)
    assert cache.partials() == []


def test_a_disk_that_fills_up_is_one_line(site, cache, monkeypatch):
    def full(self, file, chunk):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("yoda_cli.weights.partial.Partial.write", full)
    with pytest.raises(WeightsError, match="No space left on device"):
        get(site, cache)


@contextmanager
def nobody():
    """As a user without rights, where the tests run as root, who may write anywhere."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_read_only_cache_reads_but_does_not_write(site):
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "cache")
        path = get(site, cache)
        os.utime(path, (1, 1))  # the note does not fit any more, and cannot be renewed
        folders = (Path(folder), cache.root, cache.folder, *cache.folder.glob(".*"))
        for part in folders:
            part.chmod(0o555)
        with nobody():
            assert get(site, cache) == path
            other = FileEntry("other.bin", "pth", "", "", sha256=SHA)
            with pytest.raises(WeightsError, match=r"cannot be written.*--cache-dir"):
                fetch(other, [site.url], cache, QUICK)
        for part in folders:
            part.chmod(0o755)


def test_a_cache_that_is_a_file_is_one_line(site, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(WeightsError, match="cannot be written"):
        get(site, Cache(tmp_path / "cache"))


def test_a_copy_of_another_tool_is_taken_when_its_hash_is_right(site, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    wrong = tmp_path / "torch" / "hub" / "checkpoints" / "file.bin"
    right = tmp_path / "hub" / "models--a--b" / "snapshots" / "1" / "file.bin"
    for path, body in ((wrong, b"z" * len(BODY)), (right, BODY)):
        path.parent.mkdir(parents=True)
        path.write_bytes(body)
    known = FileEntry("file.bin", "pth", "", "", sha256=SHA,
                      urls=("https://huggingface.co/a/b/resolve/main/file.bin",))  # fmt: skip
    said = []
    path = fetch(known, [site.url], cache, QUICK, Watch(said.append))
    assert path.read_bytes() == BODY
    assert site.requests == []
    assert f"taken from {right}" in said[0]


def test_stale_temporaries_are_swept(cache):
    cache.prepare()
    mine = private(cache.partial("a"))
    dead = cache.partial(f"b~{MACHINE}-999999999-1")
    elsewhere = cache.partial("c~00000000-999999999-1")  # another machine's: who knows
    old, facts = cache.partial("old"), cache.partial("old.json")
    for path in (old, mine, dead, elsewhere):
        path.write_bytes(b"x" * 10)
    facts.write_text(json.dumps({"url": "http://x/", "etag": '"1"', "synced": 10}))
    assert sweep(cache) == 10
    past = time.time() - STALE_SECONDS - 10
    for path in (old, facts):
        os.utime(path, (past, past))
    assert sweep(cache) > 10
    assert cache.partials() == sorted([mine, elsewhere])


def download_in_a_process(url, root, use_lock):
    path = fetch(entry(), [url], Cache(Path(root)), use_lock=use_lock)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA


@pytest.mark.parametrize("use_lock", [True, False], ids=["lock", "no lock"])
def test_sixteen_processes_on_a_cold_cache(site, cache, use_lock):
    site.pace = 0.01
    context = multiprocessing.get_context("forkserver")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        workers = [
            context.Process(target=download_in_a_process, args=(site.url, cache.root, use_lock))
            for _ in range(16)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 16
    if use_lock:
        assert site.full_downloads == 1
    assert (cache.folder / "file.bin").read_bytes() == BODY
    assert cache.partials() == []


KILLED = """
import sys
from pathlib import Path
from yoda_cli.weights import Cache, FileEntry, fetch
url, root, sha = sys.argv[1:]
print("ready", flush=True)
fetch(FileEntry("file.bin", "pth", "", "", sha256=sha), [url], Cache(Path(root)))
"""


def kill_at_random_moments(times, tmp_path, known):
    """Kill a download ``times`` times; every file that is trusted must be right."""
    import random

    moments = random.Random(0)
    resumed = 0
    sha = SHA if known else ""
    for attempt in range(times):
        with faults.serving(BODY, pace=0.02) as site:
            cache = Cache(tmp_path / str(attempt))
            command = [sys.executable, "-c", KILLED, site.url, str(cache.root), sha]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                process.stdout.readline()
                while not site.sent:  # a busy machine takes its time to begin
                    time.sleep(0.01)
                time.sleep(moments.uniform(0, 0.5))
                process.send_signal(signal.SIGKILL)
            trusted = cache.trusted(entry(sha256=sha, bytes=None))
            assert trusted is None or trusted.read_bytes() == BODY
            site.pace = 0
            before = len(site.requests)
            path = get(site, cache, sha256=sha, bytes=None)
            assert path.read_bytes() == BODY
            resumed += any("Range" in headers for _, headers in site.requests[before:])
    return resumed


def test_kill_nine_never_leaves_a_trusted_wrong_file(tmp_path):
    assert kill_at_random_moments(10, tmp_path, known=True) > 0


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["hash known", "hash unknown"])
def test_kill_nine_a_hundred_times(tmp_path, known):
    assert kill_at_random_moments(100, tmp_path, known) > 20


def test_a_forged_note_of_progress_does_not_survive_the_hash(site, cache):
    cache.prepare()
    cache.partial("file.bin").write_bytes(b"q" * 5000)
    facts = {"url": site.url, "etag": '"v1"', "synced": 5000}
    cache.partial("file.bin").with_name("file.bin.json").write_text(json.dumps(facts))
    assert get(site, cache).read_bytes() == BODY
    assert site.requests[0][1]["Range"] == "bytes=5000-"


def test_tokens_go_to_their_host_only(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert token_for("https://huggingface.co/a/b") == "secret"
    for other in (
        "http://huggingface.co/a",
        "https://cdn.huggingface.co/a",
        "https://evil.example",
    ):
        assert token_for(other) == ""
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert token_for("https://mirror.example/a") == "secret"
    assert token_for("https://huggingface.co/a") == ""


def test_the_endpoint_is_asked_with_the_token_and_its_redirect_without(site, cache, monkeypatch):
    base = site.url.removesuffix("/file.bin")
    with faults.serving(BODY) as other:
        monkeypatch.setenv("HF_ENDPOINT", base)
        monkeypatch.setenv("HF_TOKEN", "secret")
        site.script = [faults.redirect(other.url)]
        get(site, cache, urls=["https://huggingface.co/a/b/resolve/main/file.bin"])
        assert site.requests[0][1]["Authorization"] == "Bearer secret"
        assert site.requests[0][0] == "/a/b/resolve/main/file.bin"
        assert "Authorization" not in other.requests[0][1]


def test_redirects_keep_encryption_and_stay_public():
    assert refusal("https://a/", "https://a/", "http://a/") != ""
    assert refusal("http://a/", "http://a/", "ftp://a/x") != ""
    assert refusal("https://8.8.8.8/", "https://8.8.8.8/", "https://10.0.0.1/") != ""
    assert refusal("https://8.8.8.8/", "https://8.8.8.8/", "https://1.1.1.1/x") == ""
