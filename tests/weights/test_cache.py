"""The registry: complete, consistent with the checkpoints, errors with file and line."""

import pytest

from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.models.checkpoint import read_header
from yoda_cli.weights import (
    entries,
    load_registry,
    registry,
    registry_path,
)
from yoda_cli.weights.structures import COMPOSITES, structures

MODEL = """
[models.mine]
summary = "s"
backbone = "srdiff"
scale = 4
licence = "CC0"
source = "here"
trained_with_yoda = false
files = { network = "a.pth" }
"""
FILE = """
[files."a.pth"]
format = "pth"
licence = "CC0"
source = "here"
urls = ["https://example.org/a.pth"]
"""


def load(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return load_registry([path])


def test_every_bundled_model_is_what_its_checkpoint_says():
    models = [model for model in load_registry().models.values() if model.bundled]
    assert models
    for model in models:
        header = read_header(model.path)
        assert header.backbone == model.backbone
        assert header.net["scale"] == model.scale
        assert header.card["licence"] == model.licence
        assert model.path.stat().st_size <= 26e6
        told = {"attention", "lower_bound", "steps", "sampler"}
        assert {k: header.card["defaults"][k] for k in told} == {k: getattr(model, k) for k in told}


def test_what_was_published_is_in_the_registry():
    known = load_registry()
    for name in ("general", "photo", "sr3-16-128", "sr3-64-512", "srdiff-df2k", "srdiff-celeba"):
        assert known.model(name)
    for name in ("dino_resnet50_pretrain.pth", "v2-1_512-ema-pruned.ckpt", "BSRNet.pth"):
        assert known.files_of(name)
    assert known.model("photo").name == "diffbir-v2.1"
    assert len(known.files["v2-1_512-ema-pruned.ckpt"].urls) >= 2
    assert known.files["face_swinir_v1.ckpt"].noncommercial
    assert set(known.datasets) >= {"div2k", "set5", "set14", "b100", "celebahq"}


def test_every_structure_named_is_known_and_every_published_network_has_a_file():
    used = {name for entry in load_registry().files.values() for name in entry.structure}
    assert used <= set(structures())
    inside = {part for parts in COMPOSITES.values() for _, part in parts}  # of a larger file
    assert set(structures()) - used <= inside


def test_unknown_names_come_with_the_nearest_one():
    with pytest.raises(UsageError, match=r"unknown model 'genral'; did you mean general\?"):
        load_registry().model("genral")
    with pytest.raises(UsageError, match="yoda weights list shows all; or give a checkpoint file"):
        load_registry().model("xyz")
    with pytest.raises(UsageError, match=r"nothing is called 'div2'; did you mean div2k"):
        load_registry().files_of("div2")


def test_the_registry_is_found_in_a_checkout_and_in_an_installed_package(tmp_path, monkeypatch):
    assert registry_path().name == "weights.toml"
    package = tmp_path / "yoda_cli"
    package.mkdir()
    monkeypatch.setattr(registry, "PACKAGE", package)
    with pytest.raises(WeightsError, match="incomplete"):
        registry_path()
    (tmp_path / "weights.toml").touch()
    assert registry_path() == tmp_path / "weights.toml"
    (package / "weights.toml").touch()
    assert registry_path() == package / "weights.toml"


WRONG = {
    "not TOML": ("[models", "Expected ']' at the end of a table"),
    "an unknown table": ("\n\n[model.a]\n", ":3: model: expected models"),
    "a missing key": ("[models.mine]\nsummary = 's'\n", ":1: models.mine: backbone is missing"),
    "an unknown key": (
        MODEL + 'licens = "x"\n' + FILE,
        r":10: models.mine.licens: unknown key; did you mean licence\?",
    ),
    "a wrong type": (MODEL.replace("scale = 4", "scale = 'x'") + FILE, ":5: models.mine.scale"),
    "a bool for a number": (MODEL.replace("scale = 4", "scale = true") + FILE, ":5: .*scale"),
    "no such file": (MODEL, ":9: models.mine.files: no file 'a.pth'"),
    "bundled and files": (MODEL + 'bundled = "b"\n' + FILE, "either bundled or files"),
    "a lower bound": (MODEL + "lower_bound = 0\n" + FILE, r":10: .*must be in \(0, 1\]"),
    "no steps": (MODEL + "steps = 0\n" + FILE, "at least 1"),
    "an alias twice": (
        MODEL + 'aliases = ["b"]\n' + MODEL.replace("mine", "b") + FILE,
        "already names",
    ),
    "a short hash": (FILE + 'sha256 = "abc"\n', ":7: .*hexadecimal"),
    "no size": (FILE + "bytes = 0\n", ":7: .*not a size"),
    "an address of a file": (FILE.replace("https:", "file:"), ":6: .*not an http"),
    "an address without encryption": (FILE.replace("https:", "http:"), ":6: .*not encrypted"),
    "nowhere to get it": (FILE.replace('urls = ["https://example.org/a.pth"]', ""), "needs urls"),
    "a format": (FILE.replace('"pth"', '"exe"'), ":3: .*not one of"),
    "a name with a path": (FILE.replace("a.pth", "../a.pth"), "letters, digits"),
    "a data set of nothing": (
        '[datasets.d]\nsummary = "s"\nlicence = "l"\nsource = "h"\n',
        ":1: datasets.d: needs files or manual",
    ),
    "a mirror": ('[mirrors]\n"https://a/" = "https://b/"\n', ":2: .*list of prefixes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_registry_is_refused_with_file_and_line(tmp_path, name):
    text, message = WRONG[name]
    with pytest.raises(WeightsError, match=message) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "mine.toml"))


def test_a_person_adds_a_registry_and_mirrors(tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text(MODEL + FILE)
    (tmp_path / "b.toml").write_text('[mirrors]\n"https://example.org/" = ["https://m.org/x/"]\n')
    monkeypatch.setenv("YODA_REGISTRY", f"{tmp_path / 'a.toml'}:{tmp_path / 'b.toml'}")
    known = load_registry()
    assert known.model("mine").scale == 4
    assert known.model("general")
    expected = ["https://example.org/a.pth", "https://m.org/x/a.pth"]
    assert known.urls(known.files["a.pth"]) == expected


def test_a_registry_in_the_config_folder_is_read(tmp_path, monkeypatch):
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_config_dir", lambda name: str(tmp_path / name))
    (tmp_path / "yoda").mkdir()
    (tmp_path / "yoda" / "weights.toml").write_text(MODEL + FILE)
    assert load_registry().model("mine")


def test_an_own_registry_may_not_take_a_packaged_name(tmp_path, monkeypatch):
    path = tmp_path / "a.toml"
    path.write_text(MODEL.replace("mine", "general") + FILE)
    monkeypatch.setenv("YODA_REGISTRY", str(path))
    with pytest.raises(WeightsError, match=r"a\.toml:2: models\.general: this name is taken"):
        load_registry()


def test_a_missing_bundled_file_says_that_the_installation_is_incomplete(tmp_path, monkeypatch):
    model = load_registry().model("general")
    monkeypatch.setattr(entries, "PACKAGE", tmp_path)
    with pytest.raises(WeightsError, match="incomplete"):
        _ = model.path
