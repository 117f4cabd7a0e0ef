"""A whole StableSR of random weights through the command line: import, upscale, look inside."""

import json

import pytest
import tiny_stablesr as tiny
import torch
from cases import one_by_default
from fakes import save_photo
from PIL import Image


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stablesr")
    tiny.make_files(folder)
    tiny.write_registry(folder / "eps.toml")
    tiny.write_registry(folder / "v.toml", prediction="v")
    save_photo(folder / "in.jpg", 16, 20)
    return folder


@pytest.fixture
def upscale(yoda, made):
    """``yoda upscale in.jpg -m tiny …``; the first use imports the files by name."""

    def run(*arguments, model="tiny", registry="eps", source=made / "in.jpg"):
        shared = ("--registry", made / f"{registry}.toml", "--cache-dir", made / "cache")
        if not (made / "cache").exists():
            for name in tiny.FILES:
                done = yoda("weights", "import", made / name, "--as", name, *shared)
                assert done.code == 0, done.err
        return yoda("upscale", source, "-m", model, *shared, *arguments)

    return run


def opened(path):
    with Image.open(path) as image:
        return image.size, image.tobytes(), dict(image.text)


@pytest.mark.parametrize(
    ("model", "registry"), one_by_default([("tiny", "eps"), ("tiny", "v"), ("parts", "eps")])
)
def test_a_picture_becomes_a_larger_one(upscale, tmp_path, model, registry):
    out = tmp_path / "out.png"
    done = upscale("-o", out, "--json", model=model, registry=registry)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    size, _, text = opened(out)
    assert (record["width"], record["height"]) == size == (80, 64)
    assert 0 < record["calls"] == record["planned_calls"] <= record["dense_calls"]
    settings = json.loads(json.loads(text["yoda"])["settings"])
    assert (settings["fidelity"], settings["sampler"], settings["steps"]) == (0.5, "ddpm", 2)


@pytest.mark.slow
def test_both_forms_of_the_weights_make_the_same_bytes(upscale, tmp_path):
    pictures = []
    for model in ("tiny", "parts"):
        done = upscale("-o", tmp_path / f"{model}.png", "--steps", 1, model=model)
        assert done.code == 0, done.err
        pictures.append(opened(tmp_path / f"{model}.png")[1])
    assert pictures[0] == pictures[1]


def test_windows_masks_and_steps_can_be_looked_at(upscale, tmp_path):
    done = upscale(
        "-o", tmp_path / "out.png", "--steps", 3, "--tile", 64, "--dump", tmp_path / "dump",
        "--report", tmp_path / "report.html", "--fidelity", 0,
    )  # fmt: skip
    assert done.code == 0, done.err
    folder = tmp_path / "dump" / "in"
    assert {"attention.png", "process.webp", "steps.json"} <= {p.name for p in folder.iterdir()}
    with Image.open(next(folder.glob("mask_*.png"))) as mask:
        assert mask.size == (10, 8)  # latents
    assert (tmp_path / "report.html").stat().st_size > 0


def test_the_decoders_file_is_not_asked_for_where_no_features_are(yoda, made, tmp_path):
    cache = ("--registry", made / "eps.toml", "--cache-dir", tmp_path / "cache")
    whole = made / "tiny_stablesr.ckpt"
    assert yoda("weights", "import", whole, "--as", whole.name, *cache).code == 0
    shared = (made / "in.jpg", "-m", "tiny", *cache, "--offline", "--steps", 1)
    done = yoda("upscale", *shared, "-o", tmp_path / "out.png")
    assert (done.code, "tiny_cfw.ckpt" in done.err) == (5, True)
    done = yoda("upscale", *shared, "-o", tmp_path / "out.png", "--fidelity", 0)
    assert done.code == 0, done.err


def test_a_truncated_or_misplaced_file_is_one_line(yoda, made, tmp_path):
    for folder, (slot, content) in {
        "misplaced": ("tiny_stablesr.ckpt", (made / "tiny_cfw.ckpt").read_bytes()),
        "truncated": ("tiny_cfw.ckpt", (made / "tiny_cfw.ckpt").read_bytes()[:5000]),
    }.items():
        weights = tmp_path / folder / "weights"
        weights.mkdir(parents=True)
        for name in tiny.FILES:
            (weights / name).write_bytes((made / name).read_bytes())
        (weights / slot).write_bytes(content)
        done = yoda(
            "upscale", made / "in.jpg", "-m", "tiny", "--registry", made / "eps.toml",
            "--cache-dir", tmp_path / folder, "-o", tmp_path / "out.png",
        )  # fmt: skip
        assert done.code == 5
        assert done.err.count("\n") == 1, done.err
        assert slot in done.err
        assert not (tmp_path / "out.png").exists()


def test_options_of_other_families_are_refused(upscale):
    for option, value in (("--strength", 0.5), ("--task", "face"), ("--block", 512)):
        done = upscale(option, value)
        assert done.code == 2
        assert option in done.err


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("stablesr", {"stablesr_000117.ckpt", "vqgan_cfw_00011.ckpt"}),
        ("stablesr-768v", {"stablesr_768v_000139.ckpt"}),
        ("stablesr-turbo", {"stablesr_turbo.ckpt", "vqgan_cfw_00011.ckpt"}),
    ],
)
def test_published_weights_that_are_absent_are_named_offline(yoda, made, tmp_path, name, files):
    cache = tmp_path / "none"
    done = yoda("upscale", made / "in.jpg", "-m", name, "--offline", "--cache-dir", cache)
    assert done.code == 5
    assert any(file in done.err for file in files)
    listed = yoda("weights", "list", "--files", "--cache-dir", cache)
    assert all(file in listed.out + listed.err for file in files)


def test_a_published_name_does_not_excuse_another_network(yoda, made, tmp_path):
    cache = ("--cache-dir", tmp_path / "cache")
    torch.save({"a": torch.zeros(1)}, tmp_path / "stablesr_turbo.ckpt")
    done = yoda("weights", "import", tmp_path / "stablesr_turbo.ckpt", *cache)
    assert done.code == 5
    assert done.err.count("\n") == 1


def test_windows_decide_for_themselves(upscale, tmp_path):
    done = upscale("-o", tmp_path / "out.png", "--adaptive", "--steps", 6, "--tile", 64, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["regions"]["count"] > 1
    assert record["calls"] < record["dense_calls"]
    assert opened(tmp_path / "out.png")[0] == (80, 64)
