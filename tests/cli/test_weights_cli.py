"""``yoda weights`` and ``yoda doctor`` as a person uses them, against a local server."""

import hashlib
import io
import json
import os
import re
import stat
import zipfile

import faults
import pytest
import torch
from fakes import save_photo

from yoda_cli.errors import WeightsError
from yoda_cli.weights.archive import unpack

BODY = bytes(range(256)) * 400
SHA = hashlib.sha256(BODY).hexdigest()


def pictures(*names, **extra):
    """A zip like the benchmark's."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, b"picture " + name.encode())
        for name, body in extra.items():
            archive.writestr(name, body)
    return packed.getvalue()


def registry(path, url, *, sha256=SHA, extra=""):
    path.write_text(
        f"""
[files."mine.pth"]
format = "pth"
licence = "CC-BY-NC-4.0"
noncommercial = true
source = "here"
urls = ["{url}"]
{f'sha256 = "{sha256}"' if sha256 else ""}
{extra}
"""
    )
    return path


@pytest.fixture
def place(tmp_path):
    """A server with one file, a registry that names it, an empty cache: (site, options)."""
    with faults.serving(BODY) as site:
        own = registry(tmp_path / "own.toml", site.url)
        yield site, ("--cache-dir", tmp_path / "cache", "--registry", own)


def test_a_file_is_pulled_listed_verified_found_and_removed(yoda, place, tmp_path):
    _, options = place
    assert yoda("weights", "path", "mine.pth", *options).code == 5
    done = yoda("weights", "pull", "mine.pth", *options)
    target = tmp_path / "cache" / "weights" / "mine.pth"
    assert (done.code, done.out) == (0, f"{target}\n")
    assert "licence: CC-BY-NC-4.0 (non-commercial)" in done.err
    assert target.read_bytes() == BODY
    assert yoda("weights", "path", "mine.pth", *options).out == f"{target}\n"
    rows = {
        r["name"]: r for r in json.loads(yoda("weights", "list", "--json", *options).out)["files"]
    }
    assert rows["mine.pth"]["state"] == "cached"
    assert rows["mine.pth"]["bytes"] == len(BODY)
    assert yoda("weights", "verify", *options).out == "mine.pth: ok\n"
    status = target.stat()
    target.write_bytes(b"x" + BODY[1:])
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))  # looks untouched
    done = yoda("weights", "verify", "--json", *options)
    assert done.code == 5
    assert "is damaged" in json.loads(done.out)["files"]["mine.pth"]
    assert yoda("weights", "rm", "mine.pth", *options).code == 0
    assert not target.exists()
    done = yoda("weights", "verify", "mine.pth", *options)
    assert (done.code, done.out) == (5, "mine.pth: not in the cache\n")


def test_the_list_says_what_everything_is_for(yoda, tmp_path):
    done = yoda("weights", "list", "--cache-dir", tmp_path)
    assert done.code == 0
    lines = done.out.splitlines()
    for model, licence in (("general", " * "), ("face", " Apache-2.0 ")):
        line = next(line for line in lines if line.strip().startswith(model))
        assert "ready" in line
        assert licence in line
    assert "photo (diffbir-v2.1)" in done.out
    assert re.search(r"photo \(diffbir-v2.1\) +download +6.8 GB +NC", done.out)
    assert "set5" not in done.out
    assert "set5" in yoda("weights", "list", "--all").out
    document = json.loads(yoda("weights", "list", "--json", "--cache-dir", tmp_path).out)
    assert document["schema"] == 1
    models = {m["name"]: m for m in document["models"]}
    assert models["general"]["trained_with_yoda"] is True
    assert models["diffbir-v2.1"]["aliases"] == ["photo"]
    assert models["sr3-64-512"]["state"] == "by hand"
    assert models["diffbir-v2.1"]["bytes"] > 5e9
    assert {d["name"] for d in document["datasets"]} >= {"div2k", "set5"}


def test_the_list_fits_a_terminal_of_80_columns(yoda, monkeypatch, tmp_path):
    from yoda_cli.cli import _render

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(_render.sys.stdout, "isatty", lambda: True, raising=False)
    shown = yoda("weights", "list", "--cache-dir", tmp_path).out
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, lines)) <= 80
    names = json.loads(yoda("weights", "list", "--json").out)["models"]
    assert len(lines) <= len(names) + 6 * len({model["use"] for model in names})
    for model in names:
        assert any(re.search(rf"\b{model['name']}(?![a-z0-9.])", line) for line in lines)
    assert any("photo (diffbir-v2.1) " in line for line in lines)


def test_a_card_is_shown_of_everything_that_has_a_name(yoda, tmp_path):
    shown = yoda("weights", "show", "general").out
    assert "for: photographs" in shown
    assert "limit: " in shown
    assert "--steps 2" in shown
    shown = yoda("weights", "show", "photo").out
    assert "file: DiffBIR_v2.1.pt: 1.5 GB" in shown
    assert "SHA-256: " in yoda("weights", "show", "DiffBIR_v2.1.pt").out
    assert "for: DIV2K" in yoda("weights", "show", "div2k").out
    document = json.loads(yoda("weights", "show", "face", "--json").out)
    assert document["card"]["name"] == "face"
    refused = yoda("weights", "show", "genral")
    assert refused.code == 2
    assert "did you mean general" in refused.err


def test_what_only_a_person_can_get_says_how(yoda, tmp_path):
    done = yoda("weights", "pull", "sr3-64-512", "--cache-dir", tmp_path)
    assert done.code == 5
    assert "drive.google.com" in done.err
    assert "yoda weights import FILE --as I830000_E32_gen.pth" in done.err
    done = yoda("weights", "pull", "set5", "--cache-dir", tmp_path)
    assert (done.code, "yoda bench --dataset FOLDER" in done.err) == (5, True)
    assert yoda("weights", "pull", "general").code == 0


def test_unknown_names_and_broken_registries(yoda, tmp_path):
    assert yoda("weights", "pull", "nosuch", "--cache-dir", tmp_path).code == 2
    (tmp_path / "bad.toml").write_text("[files.a]\nformat = 1\n")
    done = yoda("weights", "list", "--registry", tmp_path / "bad.toml")
    assert done.code == 5
    assert f"{tmp_path / 'bad.toml'}:2: files.a.format" in done.err


def test_options_do_not_outlive_their_run(yoda, place):
    _, options = place
    before = dict(os.environ)
    yoda("weights", "pull", "mine.pth", *options, "--offline")
    assert dict(os.environ) == before


def test_offline_names_the_command_that_fetches(yoda, place):
    site, options = place
    done = yoda("weights", "pull", "mine.pth", "--offline", *options)
    assert done.code == 5
    assert "yoda weights pull mine.pth" in done.err
    assert site.requests == []


def test_prune_removes_leftovers_and_what_no_registry_names_any_more(yoda, place, tmp_path):
    site, options = place
    own = tmp_path / "own.toml"
    assert yoda("weights", "pull", "mine.pth", *options).code == 0
    own.write_text(own.read_text().replace("mine.pth", "other.pth"))
    site.script = [faults.cut(1000)] * 9
    assert yoda("weights", "pull", "other.pth", *options).code == 5
    weights = tmp_path / "cache" / "weights"
    doomed = [
        weights / ".partial" / "other.pth",
        weights / ".partial" / "other.pth.json",
        weights / ".records" / "mine.pth.json",
        weights / "mine.pth",
    ]
    shown = yoda("weights", "prune", "--dry-run", *options).out.splitlines()
    assert sorted(shown) == [str(path) for path in doomed]
    assert all(path.exists() for path in doomed)
    assert yoda("weights", "prune", *options).code == 0
    assert not any(path.exists() for path in doomed)


DATASET = """
[files."set.zip"]
format = "zip"
licence = "CC0"
source = "here"
urls = ["{url}"]
[datasets.mini]
summary = "two pictures"
licence = "CC0"
source = "here"
files = ["set.zip"]
hr = "HR"
"""


def test_a_data_set_is_unpacked(yoda, tmp_path):
    with faults.serving(pictures("HR/a.png", "LR/X4/ax4.png")) as site:
        own = tmp_path / "own.toml"
        own.write_text(DATASET.format(url=site.url))
        options = ("--cache-dir", tmp_path / "cache", "--registry", own)
        done = yoda("weights", "pull", "mini", *options)
        folder = tmp_path / "cache" / "data" / "mini"
        assert (done.code, done.out) == (0, f"{folder}\n")
        assert (folder / "LR" / "X4" / "ax4.png").read_bytes() == b"picture LR/X4/ax4.png"
        assert yoda("weights", "path", "mini", *options).out == f"{folder}\n"


def link(archive, name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc")


@pytest.mark.parametrize(
    "name", ["../out.png", "a/../../out.png", "/out.png", "C:\\out.png", "a\\b"]
)
def test_an_archive_that_reaches_out_is_refused(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(pictures("fine.png", name))
    with pytest.raises(WeightsError, match="refused: it would write"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


def test_links_bombs_and_broken_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        link(archive, "innocent.png")
    with pytest.raises(WeightsError, match="is a link"):
        unpack(tmp_path / "link.zip", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(40 << 20))
    with pytest.raises(WeightsError, match="refused: 1 files of 41,943,040 bytes"):
        unpack(tmp_path / "bomb.zip", tmp_path / "out")
    whole = pictures("a.png")
    for body in (b"", whole[: len(whole) // 2], whole.replace(b"picture", b"pICture", 1)):
        (tmp_path / "half.zip").write_bytes(body)
        with pytest.raises(WeightsError, match="no usable zip"):
            unpack(tmp_path / "half.zip", tmp_path / "out")


@pytest.mark.parametrize("method", ["DEFLATED", "LZMA", "BZIP2"])
def test_damaged_data_in_an_archive_are_refused_and_leave_nothing(tmp_path, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", getattr(zipfile, f"ZIP_{method}")) as archive:
        archive.writestr("a.png", bytes(range(256)) * 400)
    data = path.read_bytes()
    path.write_bytes(data[:40] + b"\xff" * 80 + data[120:])
    with pytest.raises(WeightsError, match=r"no usable zip|cannot be unpacked"):
        unpack(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "HR").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a.zip").write_bytes(pictures("HR/a.png"))
    with pytest.raises(WeightsError, match="leads out"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


MODEL = """
[models.tiny]
summary = "a network of two blocks"
files = {{ network = "mine.pth" }}
backbone = "srdiff"
scale = 4
licence = "CC0"
source = "here"
trained_with_yoda = false
attention = "edge"
lower_bound = 0.5
steps = 3
sampler = "ddpm"
"""


def test_a_first_run_says_what_it_fetches_and_goes_on(yoda, tmp_path):
    from yoda_cli.models import srdiff

    torch.manual_seed(0)
    config = srdiff.SRDiffConfig(scale=4, dim=8, dim_mults=(1, 2, 2, 4), encoder_channels=8,
                                 encoder_blocks=2, encoder_growth=4)  # fmt: skip
    torch.save({"state_dict": {"model": srdiff.SRDiff(config).state_dict()}}, tmp_path / "net.ckpt")
    body = (tmp_path / "net.ckpt").read_bytes()
    save_photo(tmp_path / "in.png", 16, 16)
    with faults.serving(body, script=[faults.cut(50_000)]) as site:
        sha = hashlib.sha256(body).hexdigest()
        own = registry(tmp_path / "own.toml", site.url, sha256=sha, extra=MODEL.format())
        options = ("--cache-dir", tmp_path / "cache", "--registry", own, "-m", "tiny")
        done = yoda("upscale", tmp_path / "in.png", *options)
        assert done.code == 0, done.err
        assert done.out == f"{tmp_path / 'in_tiny_x4.png'}\n"
        assert "mine.pth: size not stated; licence: CC-BY-NC-4.0 (non-commercial); to" in done.err
        assert "again in" in done.err
        again = yoda("upscale", tmp_path / "in.png", *options, "--offline", "--overwrite")
        assert again.code == 0
        assert "licence" not in again.err


def test_the_doctor_finds_a_sound_machine(yoda, place):
    _, options = place
    done = yoda("doctor", *options)
    assert done.code == 0, done.err
    assert "torchvision" in done.out
    document = json.loads(yoda("doctor", "--json", "--offline", *options).out)
    found = {f["name"]: f for f in document["findings"]}
    assert document["ok"] is True
    assert found["torch"]["value"] == torch.__version__
    assert found["network"]["value"].startswith("offline; YODA_OFFLINE=1")
    assert {"CUDA", "MPS", "CPU", "CPU precision", "cache", "free space"} <= set(found)


def test_the_doctor_finds_a_damaged_file(yoda, place, tmp_path):
    _, options = place
    assert yoda("weights", "pull", "mine.pth", *options).code == 0
    (tmp_path / "cache" / "weights" / "mine.pth").write_bytes(b"x")
    done = yoda("doctor", *options)
    assert done.code == 5
    assert "mine.pth" in done.err
    assert "is damaged" in done.err


def test_an_attention_source_says_what_it_fetches_before_the_run(yoda, tmp_path, monkeypatch):
    from yoda_cli.attention import sources
    from yoda_cli.weights.structures import structures

    shapes = structures()["dino_vit_small16"]
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    torch.save(state, tmp_path / "dino.pth")
    body = (tmp_path / "dino.pth").read_bytes()
    save_photo(tmp_path / "in.png", 16, 16)
    mine = sources.HEADED["dino-vits16"]._replace(file="mine.pth")
    monkeypatch.setitem(sources.HEADED, "dino-vits16", mine)
    with faults.serving(body) as site:
        own = registry(tmp_path / "own.toml", site.url, sha256="")
        options = ("--cache-dir", tmp_path / "cache", "--registry", own)
        done = yoda("upscale", tmp_path / "in.png", "--attention", "dino-vits16", *options)
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert lines[0].startswith("mine.pth: size not stated; licence: CC-BY-NC-4.0 (non-commercial)")
    assert "no published hash; pinned SHA-256" in lines[1]
    assert " to compute, about " in lines[2]


def test_without_a_home_pictures_are_still_enlarged(yoda, tmp_path, monkeypatch):
    import platformdirs

    from yoda_cli.devices import device as devices

    monkeypatch.delenv("YODA_CACHE_DIR")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: "~/.cache/yoda")
    devices._fastest_on_cpu.cache_clear()
    save_photo(tmp_path / "in.png", 8, 8)
    done = yoda("upscale", tmp_path / "in.png", "--steps", 2)
    devices._fastest_on_cpu.cache_clear()
    assert done.code == 0, done.err


def test_the_card_of_a_model_is_prose_not_json(yoda):
    done = yoda("weights", "show", "general")
    assert done.code == 0
    assert "measured, Set5: base psnr gain 3.17, psnr gain" in done.out
    assert "{" not in done.out
