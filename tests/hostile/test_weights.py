"""The cache among other people's files, damaged records, senseless registries and cards."""

import json
import os
import subprocess
import sys

import faults
import pytest
import torch
from fakes import save_photo
from safetensors.torch import save_file

from yoda_cli.errors import WeightsError
from yoda_cli.weights import Cache, FileEntry, Watch, fetch, load_registry
from yoda_cli.weights.inventory import pull
from yoda_cli.weights.network import Limits, is_http, token_for
from yoda_cli.weights.tidying import prune, remove

BODY = bytes(range(256)) * 400
QUICK = Limits(connect=2, read=1, attempts=2, pause=0.01, longest_pause=0.02)
OWN = """
[files."mine.pth"]
format = "pth"
licence = "CC0"
source = "here"
urls = ["{url}"]
"""


@pytest.fixture
def site():
    with faults.serving(BODY) as served:
        yield served


def entry(**facts):
    return FileEntry("file.bin", "pth", "CC0", "here", urls=("http://x/",), **facts)


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_prune_leaves_a_folder_alone_that_is_no_cache(yoda, tmp_path):
    (tmp_path / "p" / "weights" / ".partial").mkdir(parents=True)
    for name in ("my.ckpt", ".partial/thesis.tex"):
        (tmp_path / "p" / "weights" / name).write_bytes(b"precious")
    done = yoda("weights", "prune", "--cache-dir", tmp_path / "p")
    assert done.code == 5
    assert "no CACHEDIR.TAG of yoda's" in done.err
    assert files_in(tmp_path / "p") == ["weights/.partial/thesis.tex", "weights/my.ckpt"]


def test_prune_leaves_what_yoda_did_not_put_into_its_cache(yoda, site, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(OWN.format(url=site.url))
    options = ("--cache-dir", tmp_path / "p", "--registry", own)
    weights = tmp_path / "p" / "weights"
    weights.mkdir(parents=True)
    (weights / "my.ckpt").write_bytes(b"precious")
    assert yoda("weights", "pull", "mine.pth", *options).code == 0
    (weights / ".partial" / "thesis.tex").write_bytes(b"precious")
    before = files_in(tmp_path / "p")
    assert yoda("weights", "prune", *options).code == 0
    assert yoda("weights", "prune", "--cache-dir", tmp_path / "p").code == 0  # another registry
    own.rename(tmp_path / "away.toml")  # who knows what it names
    assert yoda("weights", "prune", "--cache-dir", tmp_path / "p").code == 0
    assert [name for name in before if ".lock" not in name] == [
        name for name in files_in(tmp_path / "p") if ".lock" not in name
    ]


def test_prune_leaves_a_file_that_a_person_put_in_the_place_of_one(site, tmp_path):
    cache = Cache(tmp_path)
    path = fetch(entry(), [site.url], cache, QUICK)
    path.write_bytes(b"precious")
    assert prune(load_registry(), cache, dry_run=False) == []
    assert path.read_bytes() == b"precious"


HOLDS = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_neither_prune_nor_rm_touches_a_running_download(tmp_path):
    cache = Cache(tmp_path)
    cache.prepare()
    cache.partial("file.bin").write_bytes(b"x" * 100)
    facts = {"url": "http://x/", "etag": '"1"', "synced": 100}
    cache.partial("file.bin.json").write_text(json.dumps(facts))
    command = [sys.executable, "-c", HOLDS, str(cache.lock("file.bin"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert prune(load_registry(), cache, dry_run=False) == []
        with pytest.raises(WeightsError, match="being downloaded by another process"):
            remove(entry(), cache, forget=False)
        assert len(cache.partials()) == 2
        other.kill()
    assert len(prune(load_registry(), cache, dry_run=False)) == 2


@pytest.mark.parametrize(
    "record",
    [
        "", "{", "[]", "3", "[" * 100_000, '{"sha256": 5}', '{"sha256": "x"}',
        json.dumps({"sha256": "0" * 64, "bytes": "1", "mtime_ns": 1, "source": "", "pinned": True,
                    "when": ""}),
        json.dumps({"sha256": "../x", "bytes": 1, "mtime_ns": 1, "source": "", "pinned": True,
                    "when": ""}),
    ],
)  # fmt: skip
def test_a_damaged_record_is_no_record(site, tmp_path, record):
    cache = Cache(tmp_path)
    cache.prepare()
    cache.record_path("file.bin").write_text(record)
    assert fetch(entry(), [site.url], cache, QUICK).read_bytes() == BODY


FACTS = {"url": "", "etag": '"v1"', "synced": 1000}


@pytest.mark.parametrize(
    "changes",
    [
        {"synced": -1}, {"synced": 1e999}, {"synced": True}, {"synced": "5"}, {"synced": 1 << 70},
        {"synced": 5000}, {"etag": '"a"\r\nX: y'}, {"etag": "\u20ac"}, {"etag": ["x"]},
        {"etag": '"' + "x" * 100_000 + '"'}, {"url": 5}, {"total": "x"}, {"total": -1}, {"more": 1},
    ],
)  # fmt: skip
def test_damaged_facts_of_an_unfinished_download_begin_it_anew(site, tmp_path, changes):
    cache = Cache(tmp_path)
    cache.prepare()
    cache.partial("file.bin").write_bytes(b"q" * 1000)
    facts = json.dumps({**FACTS, "url": site.url, **changes})
    cache.partial("file.bin.json").write_text(facts)
    assert fetch(entry(), [site.url], cache, QUICK).read_bytes() == BODY
    assert "Range" not in site.requests[0][1]


def test_a_folder_of_ones_own_is_not_unpacked_into(tmp_path):
    mine = tmp_path / "data" / "mini" / "HR" / "a.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"precious")
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("HR/a.png", b"picture")
    own = tmp_path / "own.toml"
    text = OWN.replace("mine.pth", "set.zip").replace('"pth"', '"zip"')
    text += '[datasets.mini]\nsummary = ""\nlicence = ""\nsource = ""\nfiles = ["set.zip"]\n'
    with faults.serving(packed.getvalue()) as site:
        own.write_text(text.format(url=site.url))
        with pytest.raises(WeightsError, match="move it away"):
            pull("mini", load_registry([own]), Cache(tmp_path), Watch())
    assert mine.read_bytes() == b"precious"


SENSELESS = {
    "models = 3": "models",
    "mirrors = [1]": "mirrors",
    "[models]\na = 3": "models.a",
    "[files.a]\nformat = 'pth'\nlicence = ''\nsource = ''\nurls = ['http://[']": "http",
    "[files.a]\nformat = 'pth'\nlicence = ''\nsource = ''\nurls = ['https://h:99999/']": "http",
    "[files.a]\nformat = 'pth'\nlicence = ''\nsource = ''\nurls = ''": "urls",
    "[files.a]\nformat = 'pth'\nlicence = ''\nsource = ''\nmanual = ''\norigin = 'x'": "origin",
    "x = " + "[" * 100_000: "too deep",
    "[models.a]\nsummary=''\nbackbone='sr3'\nscale=99\nlicence=''\nsource=''\n"
    "trained_with_yoda=false\nbundled='x'": "steps and scale are at least 1",
    "[models.a]\nsummary=''\nbackbone='sr3'\nscale=true\nlicence=''\nsource=''\n"
    "trained_with_yoda=false\nbundled='x'": "scale",
}  # fmt: skip


@pytest.mark.parametrize("text", SENSELESS)
def test_a_senseless_registry_is_one_line_with_its_place(yoda, tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text)
    done = yoda("weights", "list", "--registry", path)
    assert done.code == 5
    assert done.err.startswith(f"yoda: {path}")
    assert SENSELESS[text] in done.err
    assert done.err.count("\n") == 1


MODEL = """
[files."a.pth"]
format = "pth"
licence = ""
source = ""
urls = ["http://127.0.0.1:9/none"]
sha256 = "{sha}"
[models.mine]
summary = ""
files = {{ network = "a.pth", controlnet = "a.pth", diffusion = "a.pth" }}
scale = 4
licence = ""
source = ""
trained_with_yoda = false
{extra}
"""
MISSPELT = {
    'backbone = "sr33"': "backbone: 'sr33' is not one of",
    'backbone = "sr3"\nsampler = "dimm"': "sampler: 'dimm' is unknown; use ddim",
    'backbone = "diffbir"\n[models.mine.settings]\nchain = "ledding"': "chain = 'ledding': use",
    'backbone = "diffbir"\n[models.mine.settings]\ncolor = "x"': "color = 'x': use wavelet",
    'backbone = "diffbir"\n[models.mine.settings]\nprediction = "z"': "prediction = 'z': use eps",
    'backbone = "diffbir"\n[models.mine.settings]\ncfg = "high"': "cfg = 'high'",
    'backbone = "diffbir"\n[models.mine.settings]\nshortest = 0.5': "shortest = 0.5",
    'backbone = "sr3"\nattention = "lerned"': "attention: 'lerned' is unknown; use learned",
}


@pytest.mark.parametrize("extra", MISSPELT)
def test_a_misspelt_value_is_found_before_anything_is_fetched(yoda, tmp_path, extra):
    path = tmp_path / "own.toml"
    path.write_text(MODEL.format(extra=extra, sha="0" * 64))
    (tmp_path / "a.png").write_bytes(b"")
    done = yoda("upscale", tmp_path / "a.png", "-m", "mine", "--registry", path)
    assert done.code == 5, done.err
    assert done.err.startswith(f"yoda: {path}:")
    assert MISSPELT[extra] in done.err


CARDS = {
    "a card that is a number": {"card": 5},
    "a card that is a list": {"card": []},
    "defaults that are a list": {"card": {"defaults": [1]}},
    "an unknown default": {"card": {"defaults": {"x": 1}}},
    "a default of another type": {"card": {"defaults": {"steps": "8"}}},
    "an unknown sampler": {"card": {"defaults": {"sampler": "dimm"}}},
    "a senseless bound": {"card": {"defaults": {"lower_bound": 7.0}}},
    "training that is a text": {"card": {"training": "x"}},
    "options that are a text": {"card": {"training": {"options": "x"}}},
    "a degradation that is a text": {"card": {"training": {"options": {"degrade": "x"}}}},
    "a network that is a list": {"net": [1]},
    "a width that is a text": {"net": {"dim": "x"}},
    "no width": {"net": {"dim": 0}},
    "less than no width": {"net": {"dim": -4}},
    "any width": {"net": {"dim": 60_000}},
    "any number of blocks": {"net": {"encoder_blocks": 60_000}},
    "any length of the chain": {"net": {"num_steps": 1 << 40}},
    "a width that is true": {"net": {"dim": True}},
    "a number that is none": {"net": {"clip_z0": float("nan")}},
    "an unknown schedule": {"net": {"schedule": "cosin"}},
    "a backbone that is a list": {"backbone": []},
    "a format that is a list": {"format": [1]},
}


@pytest.mark.parametrize("name", CARDS)
def test_a_checkpoint_of_senseless_words_is_one_line(yoda, tmp_path, name):
    record = {"format": 1, "backbone": "srdiff", "net": {}, "card": {}, **CARDS[name]}
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"yoda": json.dumps(record)})
    (tmp_path / "a.png").write_bytes(b"")
    done = yoda("upscale", tmp_path / "a.png", "-m", path)
    assert done.code == 5, done.err
    assert done.err.count("\n") == 1


def test_metadata_that_is_too_deep_is_one_line(yoda, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"yoda": "[" * 100_000})
    (tmp_path / "a.png").write_bytes(b"")
    assert yoda("upscale", tmp_path / "a.png", "-m", path).code == 5


@pytest.mark.parametrize("token", ["gehe\u00efm", "\u20ac", "a\nX-Other: b", "a b", "\x7f"])
def test_a_token_that_no_header_carries_is_named(site, tmp_path, monkeypatch, token):
    monkeypatch.setenv("HF_ENDPOINT", site.url.removesuffix("/file.bin"))
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(WeightsError, match="HF_TOKEN holds a character") as caught:
        fetch(entry(), ["https://huggingface.co/a/resolve/main/file.bin"], Cache(tmp_path), QUICK)
    assert token not in str(caught.value)
    assert site.requests == []


def test_addresses_that_cannot_be_taken_apart_are_refused(tmp_path, monkeypatch):
    for url in ("http://[", "http://h:99999/", "http://", "ftp://h/", "x", "http://h:x/"):
        assert not is_http(url)
        with pytest.raises(WeightsError, match=r"not an http\(s\) address"):
            fetch(entry(), [url], Cache(tmp_path), QUICK)
    monkeypatch.setenv("HF_ENDPOINT", "http://[")
    with pytest.raises(WeightsError, match="HF_ENDPOINT"):
        token_for("https://huggingface.co/x")


def test_prune_leaves_another_file_of_the_same_size_and_time_and_a_link(yoda, site, tmp_path):
    """The record still fits by what is cheap to ask; what is deleted is hashed first."""
    own = tmp_path / "own.toml"
    own.write_text(OWN.format(url=site.url))
    cache = tmp_path / "p"
    assert yoda("weights", "pull", "mine.pth", "--cache-dir", cache, "--registry", own).code == 0
    own.write_text(OWN.format(url=site.url).replace("mine.pth", "other.pth"))
    path = cache / "weights" / "mine.pth"
    then = path.stat()
    path.rename(tmp_path / "moved.pth")
    path.symlink_to(tmp_path / "moved.pth")
    before = files_in(tmp_path)
    assert yoda("weights", "prune", "--cache-dir", cache).code == 0
    assert files_in(tmp_path) == before
    path.unlink()
    path.write_bytes(bytes(then.st_size))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert yoda("weights", "prune", "--cache-dir", cache).code == 0
    assert path.read_bytes() == bytes(then.st_size)
    (tmp_path / "moved.pth").rename(path)
    assert yoda("weights", "prune", "--cache-dir", cache, "--dry-run").out.count("mine.pth") == 2
    assert yoda("weights", "prune", "--cache-dir", cache).code == 0
    assert not path.exists()


def test_prune_makes_no_lock_for_what_is_not_there(yoda, tmp_path):
    cache = Cache(tmp_path / "p")
    cache.prepare()
    before = files_in(tmp_path)
    assert yoda("weights", "prune", "--cache-dir", tmp_path / "p").code == 0
    assert files_in(tmp_path) == before


def test_a_dry_run_of_a_download_asks_nobody_and_writes_nothing(yoda, site, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(OWN.format(url=site.url))
    options = ("mine.pth", "--cache-dir", tmp_path / "p", "--registry", own)
    done = yoda("weights", "pull", *options, "--dry-run")
    assert done.code == 0, done.err
    assert "to download: mine.pth" in done.out
    assert "nothing was downloaded" in done.err
    assert not (tmp_path / "p").exists()
    assert site.requests == []
    assert yoda("weights", "pull", *options).code == 0
    assert "all is there already" in yoda("weights", "pull", *options, "--dry-run").err
    by_hand = yoda("weights", "pull", "sr3-64-512", "--dry-run")
    assert (by_hand.code, by_hand.out.count("by hand: ")) == (0, 1)


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize("line", [
    "train --data . -o run --steps 1 --init PIPE",
    *(pytest.param(line, marks=pytest.mark.slow) for line in (
        "upscale a.png -m PIPE", "upscale a.png --adaptive --regressor PIPE", "export PIPE -o out",
        "weights import PIPE", "bench -m PIPE",
    )),
])  # fmt: skip
def test_a_pipe_is_no_weights_file_and_is_not_waited_for(tmp_path, line):
    """What opens such files waits in a library, where no Ctrl-C reaches it."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    save_photo(tmp_path / "a.png", 8, 8)
    words = line.replace("PIPE", "pipe.safetensors").split()
    command = [sys.executable, "-m", "yoda_cli", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode in (2, 3, 5), done.stderr
    assert b"Traceback" not in done.stderr
