"""A whole DiffBIR of random weights through the command line: import, upscale, look inside."""

import io
import json

import pytest
import tiny_diffbir as tiny
from cases import one_by_default
from fakes import save_photo
from PIL import Image


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Files, a registry of both kinds of version, and a cache that holds them."""
    folder = tmp_path_factory.mktemp("photo")
    tiny.make_files(folder)
    tiny.write_registry(folder / "eps.toml")
    tiny.write_registry(
        folder / "v.toml", prediction="v", chain="trailing", cfg=3.0, sampler="dpm++3m-sde"
    )
    save_photo(folder / "in.jpg", 24, 32)
    return folder


@pytest.fixture
def photo(yoda, made):
    """``yoda upscale in.jpg -m tiny …``; the first use imports the files by name."""

    def run(*arguments, registry="eps", source=made / "in.jpg"):
        shared = ("--registry", made / f"{registry}.toml", "--cache-dir", made / "cache")
        if not (made / "cache").exists():
            for name in ("tiny_control.pth", "tiny_sd.ckpt", "tiny_stage1.pth"):
                done = yoda("weights", "import", made / name, "--as", name, *shared)
                assert done.code == 0, done.err
        return yoda("upscale", source, "-m", "tiny", *shared, *arguments)

    return run


def opened(path):
    with Image.open(path) as image:
        return image.size, dict(image.text)


@pytest.mark.parametrize("registry", one_by_default(["eps", "v"]))
def test_a_degraded_picture_becomes_a_larger_one(photo, tmp_path, registry):
    out = tmp_path / "out.png"
    done = photo("-o", out, "--steps", 2, "--json", registry=registry)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    size, text = opened(out)
    assert (record["width"], record["height"]) == size == (128, 96)
    assert record["calls"] == record["planned_calls"] <= record["dense_calls"] == 2
    settings = json.loads(json.loads(text["yoda"])["settings"])
    assert settings["cfg"] == (1.0 if registry == "eps" else 3.0)
    assert settings["sampler"] == ("ddpm" if registry == "eps" else "dpm++3m-sde")


@pytest.mark.slow
def test_windows_masks_and_steps_can_be_looked_at(photo, tmp_path):
    done = photo(
        "-o", tmp_path / "out.png", "--steps", 3, "--tile", 64, "--dump", tmp_path / "dump",
        "--report", tmp_path / "report.html",
    )  # fmt: skip
    assert done.code == 0, done.err
    names = {path.name for path in (tmp_path / "dump" / "in").iterdir()}
    assert {"attention.png", "process.webp", "steps.json"} <= names
    folder = tmp_path / "dump" / "in"
    assert opened(next(folder.glob("mask_*.png")))[0] == (16, 12)  # latents
    assert opened(next(folder.glob("state_*.png")))[0] == (128, 96)
    assert "negative prompt" in (tmp_path / "report.html").read_text()


def test_a_plan_is_told_and_nothing_is_written(photo, made):
    done = photo("--dry-run", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["planned_calls"] > 0
    assert not (made / "in_tiny_x4.png").exists()


@pytest.mark.slow
def test_what_steers_it_changes_the_picture(photo, tmp_path):
    def pixels(name, *arguments):
        done = photo("-o", tmp_path / name, "--steps", 2, *arguments)
        assert done.code == 0, done.err
        with Image.open(tmp_path / name) as image:
            return image.tobytes()

    plain = pixels("plain.png")
    assert plain == pixels("again.png")
    assert plain != pixels("prompt.png", "--prompt", "a lighthouse")
    assert plain != pixels("cfg.png", "--cfg", 4)
    assert plain != pixels("strength.png", "--strength", 0.2)
    assert plain != pixels("bare.png", "--stage1", "none")
    assert plain != pixels("seed.png", "--seed", 5)


def test_stage_one_may_be_any_restorer_or_is_refused(photo, made, tmp_path):
    out = ("-o", tmp_path / "out.png", "--steps", 1)
    assert photo(*out, "--stage1", made / "tiny_stage1.pth").code == 0
    done = photo(*out, "--overwrite", "--stage1", "cats")
    assert done.code == 2
    assert "no restorer 'cats'" in done.err
    assert "tiny_stage1.pth" in done.err
    assert "tiny_control.pth" not in done.err  # which is in the registry, but restores nothing
    done = photo(*out, "--overwrite", "--stage1", made / "tiny_control.pth")
    assert done.code == 5
    assert "time_embed.0.weight" in done.err
    done = photo(*out, "--overwrite", "--task", "face")
    assert done.code == 2
    assert "no stage one for --task face" in done.err


def test_published_weights_that_are_absent_are_named_offline(yoda, made, tmp_path):
    done = yoda(
        "upscale", made / "in.jpg", "-m", "photo", "--offline", "--cache-dir", tmp_path / "none"
    )
    assert done.code == 5
    assert "DiffBIR_v2.1.pt" in done.err


def test_options_of_photo_are_refused_elsewhere(yoda, made):
    done = yoda("upscale", made / "in.jpg", "--prompt", "a cat")
    assert done.code == 2
    assert "does not read --prompt" in done.err


@pytest.mark.slow
def test_windows_decide_for_themselves_and_are_blended_once(photo, tmp_path):
    out, more = tmp_path / "out.png", ("--adaptive", "--steps", 6, "--tile", 64)
    done = photo("-o", out, *more, "--json", "--report", tmp_path / "run.html")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["regions"]["count"] == 9
    assert max(record["regions"]["steps"]) < record["regions"]["chain"]
    assert record["calls"] < record["dense_calls"]
    assert "9 regions" in (tmp_path / "run.html").read_text()
    first = out.read_bytes()
    assert photo("-o", out, *more, "--no-skip").code == 0
    with Image.open(out) as image, Image.open(io.BytesIO(first)) as before:
        assert image.tobytes() == before.tobytes()


@pytest.mark.parametrize(("bound", "code"), [("12287", 4), ("12288", 0)])
def test_the_bound_counts_the_picture_that_is_worked_on(photo, tmp_path, bound, code):
    """9 × 3 pixels become 36 × 12 by way of 192 × 64: the model works on no shorter side."""
    source = save_photo(tmp_path / "in.png", 3, 9)
    done = photo("--dry-run", "--max-pixels", bound, source=source)
    assert done.code == code, done.err
    assert code == 0 or "by way of 12,288 pixels" in done.err
