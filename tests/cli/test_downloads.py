"""What would be downloaded is said beforehand, and gigabytes are asked for. No network."""

import json

import pytest
from commands import at_terminal, finished
from fakes import save_photo

from yoda_cli.cli import _downloads
from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import WeightsError
from yoda_cli.models import loading
from yoda_cli.upscaling.pipeline import downloads_of
from yoda_cli.weights import load_registry


@pytest.fixture(autouse=True)
def nothing_is_fetched(tmp_path, monkeypatch):
    """An empty cache, and no connection to anybody."""
    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("a connection"))


@pytest.fixture
def picture(tmp_path):
    return save_photo(tmp_path / "in.png", 9, 13)


def test_a_dry_run_says_what_would_be_downloaded_and_opens_no_connection(yoda, picture, tmp_path):
    done = yoda("upscale", picture, "--model", "photo", "--dry-run")
    assert done.code == 0, done.err
    *files, line = done.out.splitlines()
    assert len(files) > 1
    assert all(one.startswith("to download: ") and "licence: " in one for one in files)
    assert line == f"{picture} → {tmp_path / 'in_photo_x4.png'}: 52×36"
    assert "GB to download first; nothing was downloaded or written" in done.err
    assert not (tmp_path / "cache").exists()


def test_files_that_a_person_must_fetch_are_said_before_gigabytes_are_asked_for(yoda, picture):
    """AddSR's own networks stand where no program may fetch them."""
    done = yoda("upscale", picture, "--model", "addsr", "--dry-run")
    assert done.code == 0, done.err
    by_hand = [line for line in done.out.splitlines() if line.startswith("by hand: ")]
    assert [line.split(": ")[1] for line in by_hand] == [
        "addsr_unet.safetensors", "addsr_controlnet.safetensors", "DAPE.pth",
    ]  # fmt: skip
    assert all(line.count("yoda weights import") == 1 for line in by_hand)
    assert "2 files, about 6.0 GB to download and 3 files to fetch by hand first" in done.err
    told = yoda("upscale", picture, "--model", "addsr", "--dry-run", "--json").out
    statuses = [json.loads(line)["status"] for line in told.splitlines()]
    assert statuses == ["by hand"] * 3 + ["to download"] * 2 + ["planned"]
    for more in ((), ("--yes",)):
        refused = yoda("upscale", picture, "--model", "addsr", *more)
        assert refused.code == 5
        assert "addsr_unet.safetensors has no address a program may use" in refused.err
        assert "2 more: see --dry-run" in refused.err
        assert refused.err.count("\n") == 1


def test_the_same_as_json_has_its_documented_fields(yoda, picture):
    done = yoda("upscale", picture, "--model", "photo", "--dry-run", "--json")
    *files, planned = map(json.loads, done.out.splitlines())
    assert {one["status"] for one in files} == {"to download"}
    assert set(files[0]) == {
        "schema", "status", "file", "bytes", "exact", "licence", "noncommercial",
    }  # fmt: skip
    known = json.loads(yoda("upscale", picture, "--dry-run", "--json").out)
    assert set(known) == set(planned)
    assert planned["forecast_seconds"] is None
    assert known["forecast_seconds"] > 0
    assert {one["schema"] for one in [*files, planned, known]} == {2}


def test_a_sketch_names_pictures_that_cannot_be_read(yoda, picture, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    done = yoda("upscale", picture, tmp_path / "bad.png", "--model", "photo", "--dry-run")
    assert done.code == 4
    assert "bad.png is damaged" in done.err


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ({}, set()),
        ({"faces": True}, {"yunet_n_dynamic.onnx"}),
        ({"attention": "dino-vits8"}, {"dino_deitsmall8_pretrain.pth"}),
        ({"model": "photo"}, None),
        ({"model": "photo", "task": "face"}, None),
        ({"model": "realesrgan-x4plus"}, None),
        ({"model": "seesr", "stage1": "none"}, None),
    ],
)
def test_what_is_said_is_what_loading_asks_for(options, files, monkeypatch):
    """The files of a forecast are those that the loader obtains, in its own words."""
    asked = UpscaleOptions(device="cpu", precision="fp32", **options)
    if files is None:
        entry, wanted = loading.find_entry(asked), []

        def obtained(name, registry, cache, watch):
            wanted.append(name)
            return cache.path(registry.files[name])

        monkeypatch.setattr(loading, "obtain", obtained)
        monkeypatch.setattr(loading, "need", lambda *names: None)
        with pytest.raises(Exception):  # noqa: B017, PT011
            loading.published_model(entry, load_registry(), asked, loading.Watch())
        files = set(wanted)
        assert files
    assert {entry.name for entry in downloads_of(asked)} == files


def test_without_a_terminal_gigabytes_need_yes_and_small_files_do_not(yoda, picture):
    done = yoda("upscale", picture, "--model", "photo")
    assert done.code == 5
    assert "give --yes, or look with --dry-run" in done.err
    small = downloads_of(UpscaleOptions(attention="dino-vits8"))
    _downloads.agree(small, yes=False)
    large = downloads_of(UpscaleOptions(model="photo"))
    _downloads.agree(large, yes=True)
    _downloads.agree(large, yes=False, named=True)
    with pytest.raises(WeightsError, match="nobody can be asked"):
        _downloads.agree(large, yes=False)


def test_a_terminal_is_asked_and_no_means_no(picture, tmp_path):
    code, said = at_terminal(
        "upscale", picture, "--model", "photo", "--cache-dir", tmp_path / "c", answer=b"n\n"
    )
    assert code == 5
    assert b"Download " in said
    assert b" GB? [y/N]" in said
    assert b"licence: " in said
    assert b"nothing was downloaded" in said


def test_pulling_asks_at_a_terminal_too(tmp_path):
    code, said = at_terminal(
        "weights", "pull", "photo", "--cache-dir", tmp_path / "c", answer=b"\n"
    )  # fmt: skip
    assert code == 5
    assert b"[y/N]" in said


def test_offline_there_is_nothing_to_ask(picture, tmp_path):
    done = finished("upscale", picture, "--model", "photo", "--offline")
    assert done.returncode == 5
    assert b"is offline" in done.stderr
