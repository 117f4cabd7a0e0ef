"""``yoda attention``, ``--dump`` and ``--report``: what a person sees of a run's inside."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from fakes import save_photo
from PIL import Image

from yoda_cli.attention import HEADED, SOURCES
from yoda_cli.weights.structures import structures

TOTAL = 100  # steps of the tiny checkpoint


@pytest.fixture
def picture(tmp_path):
    return save_photo(tmp_path / "in.png", 24, 40)


@pytest.fixture
def attention(yoda, tiny_checkpoint):
    return lambda *arguments: yoda("attention", *arguments, "--model", tiny_checkpoint)


@pytest.fixture
def upscale(yoda, tiny_checkpoint):
    return lambda *a: yoda("upscale", *a, "--model", tiny_checkpoint, "--precision", "fp32")


@pytest.fixture(scope="module")
def dino_cache(tmp_path_factory):
    """A cache with DINO weights of random numbers, as ``yoda weights import`` leaves it."""
    from yoda_cli.weights import Cache, load_registry
    from yoda_cli.weights.importing import import_file

    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    for structure in ("dino_vit_small16", "dino_resnet50"):
        state = {key: random(key, shape) for key, shape in structures()[structure].items()}
        torch.save(state, folder / "a.pth")
        import_file(folder / "a.pth", None, load_registry(), Cache(folder / "cache"))
    return folder / "cache"


def random(key, shape):
    """Weights of a plausible size; variances are positive."""
    if key.endswith("running_var"):
        return torch.rand(shape) + 0.5
    fan_in = max(1, int(np.prod(shape[1:])))
    return torch.randn(shape) / fan_in**0.5 if shape else torch.zeros(shape)


def grey(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_without_a_wish_the_table_is_the_result(attention, picture):
    done = attention(picture)
    assert done.code == 0
    assert re.search(r"in\.png +learned +0\.\d{3} +0\.\d\d … 0\.\d\d +[\d ]+ % +\d+ of 4", done.out)
    assert sorted(p.name for p in picture.parent.iterdir()) == ["in.png"]


def test_a_map_is_saved_and_its_path_is_the_result(attention, picture, tmp_path):
    done = attention(picture, "--save-map", "--source", "edge")
    assert (done.code, done.out) == (0, f"{tmp_path / 'in_attention.png'}\n")
    assert "edge" in done.err
    values = grey(tmp_path / "in_attention.png")
    assert values.shape == (24, 40)
    assert values.dtype == np.uint8
    assert (values.min(), values.max()) == (0, 255)


def test_sixteen_bits_and_numbers(attention, picture, tmp_path):
    assert attention(picture, "--save-map", "--format", "png16", "--source", "edge").code == 0
    deep = grey(tmp_path / "in_attention.png")
    assert deep.dtype == np.uint16
    assert attention(picture, "--save-map", "--format", "npy", "--source", "edge").code == 0
    exact = np.load(tmp_path / "in_attention.npy")
    assert exact.dtype == np.float32
    assert np.abs(deep / 65535 - exact).max() < 1e-5


@pytest.mark.parametrize("source", [*SOURCES, "learned"])
def test_every_free_source_on_odd_pictures(attention, tmp_path, source):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 30, 4), np.uint8)
    Image.fromarray(noise).save(tmp_path / "rgba.png")
    Image.fromarray(noise[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(noise[..., :3]).quantize(8).save(tmp_path / "palette.png")
    cv2.imwrite(str(tmp_path / "deep.png"), rng.integers(0, 65536, (20, 20, 3), np.uint16))
    Image.new("RGB", (20, 20), (90, 90, 90)).save(tmp_path / "flat.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    save_photo(tmp_path / "long.png", 5, 400)
    inputs = sorted(tmp_path.glob("*.png"))
    done = attention(*inputs, "--source", source, "--save-map", "--overlay", "--grid", "--json",
                     "-o", tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err
    records = {json.loads(line)["source"]: json.loads(line) for line in done.out.splitlines()}
    assert len(records) == len(inputs) == 7
    for path in inputs:
        record = records[str(path)]
        assert 0 <= record["mean"] <= 1
        assert 0 <= record["entropy_bits"] <= 8
        with Image.open(path) as image:
            assert [record["width"], record["height"]] == list(image.size)
            assert grey(tmp_path / "out" / f"{path.stem}_attention.png").shape == image.size[::-1]


def test_masks_are_the_methods(attention, picture, tmp_path):
    options = ("--source", "edge", "--lower-bound", 0.25, "--save-map", "--format", "npy")
    assert attention(picture, *options, "--masks", "90,60,25,1").code == 0
    shares = []
    for t in (90, 60, 25, 1):
        mask = grey(tmp_path / f"in_mask_t{t:04d}.png")
        assert mask.shape == (96, 160)
        assert set(np.unique(mask)) <= {0, 255}
        shares.append(float((mask > 0).mean()))
    assert shares == sorted(shares)
    assert shares[0] < 0.9
    assert shares[2:] == [1, 1]  # T·(0 + l) = 25
    inside = np.load(tmp_path / "in_attention.npy")
    assert abs(shares[1] - (inside >= 0.35).mean()) < 0.1


def test_the_table_counts_what_a_run_does(attention, upscale, picture, tmp_path):
    shown = json.loads(attention(picture, "--json", "--source", "edge").out)
    done = upscale(picture, "-o", tmp_path / "o.png", "--json", "--attention", "edge",
                   "--dump", tmp_path / "d")  # fmt: skip
    ran = json.loads(done.out)
    assert shown["planned_calls"] == ran["planned_calls"] == ran["calls"]
    steps = json.loads((tmp_path / "d" / "in" / "steps.json").read_text())["steps"]
    assert steps == shown["steps"]


def test_an_overlay_has_colours_and_a_legend(attention, picture, tmp_path):
    assert attention(picture, "--overlay", "--source", "gaussian").code == 0
    with Image.open(tmp_path / "in_overlay.png") as image:
        assert image.size == (640 + 64, 384)
        pixels = np.asarray(image.convert("RGB"))
    bar = pixels[:, 640 + 12].astype(int)
    assert bar[0, 0] > 200  # yellow above
    assert bar[0, 2] < 120
    assert bar[-1, 0] < 90  # dark blue below
    assert (pixels[:, 640 + 30 :] < 128).any()  # numbers


def test_a_grid_shows_every_source_or_every_head(attention, picture, tmp_path, dino_cache):
    from yoda_cli.reports.attention_maps import PANEL_SIDE
    from yoda_cli.reports.visualize import GAP_PIXELS, LABEL_PIXELS

    def panels(path, aspect):
        with Image.open(path) as image:
            width, height = image.size
        columns = (width + GAP_PIXELS) // (PANEL_SIDE + GAP_PIXELS)
        rows = (height + GAP_PIXELS) // (round(PANEL_SIDE * aspect) + LABEL_PIXELS + GAP_PIXELS)
        return columns * rows

    assert attention(picture, "--grid").code == 0
    assert panels(tmp_path / "in_grid.png", 24 / 40) >= 2 + len(SOURCES)
    done = attention(picture, "--grid", "--source", "dino-vits16", "--cache-dir", dino_cache)
    assert done.code == 0, done.err
    assert panels(tmp_path / "in_grid.png", 24 / 40) >= 1 + 6 + 2


@pytest.mark.parametrize("source", ["dino-vits16", "dino-resnet50", "dino-resnet50-cam"])
def test_dino_sources_run_from_the_cache(attention, upscale, tmp_path, source, dino_cache):
    picture = save_photo(tmp_path / "in.png", 70, 100)
    offline = ("--cache-dir", dino_cache, "--offline")
    maps = {}
    for heads in ("max", "avg", "0", "5"):
        done = attention(picture, "--source", source, "--heads", heads, "--save-map", *offline)
        assert done.code == 0, done.err
        maps[heads] = grey(tmp_path / "in_attention.png")
        assert maps[heads].shape == (70, 100)
    assert not np.array_equal(maps["max"], maps["0"])
    done = upscale(picture, "-o", tmp_path / "o.png", "--attention", source, *offline)
    assert done.code == 0, done.err


def test_a_large_picture_is_seen_in_windows_and_said(attention, tmp_path, dino_cache, monkeypatch):
    from yoda_cli.attention import dino

    monkeypatch.setattr(dino, "MAX_TOKENS", 8)
    path = save_photo(tmp_path / "in.png", 48, 64)
    done = attention(path, "--source", "dino-vits16", "--save-map", "--cache-dir", dino_cache)
    assert done.code == 0, done.err
    assert "in overlapping windows, at native scale" in done.err


@pytest.mark.parametrize("source", HEADED)
def test_without_weights_and_offline_the_way_out_is_named(attention, picture, tmp_path, source):
    done = attention(picture, "--source", source, "--offline", "--cache-dir", tmp_path / "empty")
    assert done.code == 5
    assert f"yoda weights pull {HEADED[source].file}" in done.err
    assert "sources that need no download: learned, uniform, gaussian, edge, sift" in done.err
    assert not (tmp_path / "empty").exists()


def test_bad_wishes(attention, upscale, picture, tmp_path):
    for arguments, message in [
        (("--source", "dino-vits8", "--heads", "9"), "give 0 … 5, avg or max"),
        (("--source", "edge", "--heads", "max"), "the source edge has no heads"),
        (("--heads", "1"), "has no heads"),
        (("--source", "egde"), "unknown attention source 'egde'"),
        (("--save-map", "--format", "bmp"), "format 'bmp' is not allowed"),
        (("--masks", "x"), "masks 'x' is not allowed"),
        (("--masks", "0"), "t = 0 is not allowed; this model has 1 … 100"),
        (("--masks", "101"), "1 … 100"),
    ]:
        done = attention(picture, *arguments)
        assert (done.code, message in done.err) == (2, True), done.err
    assert attention(tmp_path / "none.png").code == 3
    for arguments in (("--save-masks",), ("--dump", tmp_path / "d", "--every", "0")):
        assert upscale(picture, *arguments).code == 2
    other = save_photo(tmp_path / "other.png", 8, 8)
    assert upscale(picture, other, "--report", tmp_path / "r.html").code == 2


def test_a_map_of_another_size_is_resized_and_said(attention, upscale, picture, tmp_path):
    Image.new("L", (10, 6), 128).save(tmp_path / "painted.png")
    done = attention(picture, "--source", tmp_path / "painted.png")
    assert "painted.png is 10×6; it was resized to 40×24" in done.err
    done = upscale(picture, "-o", tmp_path / "o.png", "--attention", tmp_path / "painted.png")
    assert "it was resized to 40×24" in done.err


def test_nothing_of_somebody_else_is_replaced(attention, picture, tmp_path):
    (tmp_path / "in_attention.png").write_bytes(b"mine")
    assert attention(picture, "--save-map").code == 7
    assert (tmp_path / "in_attention.png").read_bytes() == b"mine"
    assert attention(picture, "--save-map", "--overwrite").code == 0
    assert attention(picture, "--save-map").code == 0  # now it is ours


def test_a_dump_shows_everything(upscale, picture, tmp_path):
    done = upscale(picture, "-o", tmp_path / "o.png", "--dump", tmp_path / "d")
    assert done.code == 0, done.err
    folder = tmp_path / "d" / "in"
    names = sorted(p.name for p in folder.iterdir())
    for kind in ("mask", "state", "estimate"):
        assert sum(name.startswith(f"{kind}_") for name in names) == 4
    assert "mask_0000_t0100-0075.png" in names
    assert grey(folder / "attention.png").dtype == np.uint16
    last = cv2.imread(str(folder / "state_0003_t0025-0000.png"))
    assert np.array_equal(last, cv2.imread(str(tmp_path / "o.png")))  # the last state is the result
    rows = (folder / "steps.csv").read_text().splitlines()
    assert rows[0] == "index,t,s,active_share"
    assert len(rows) == 5
    for line in rows[1:]:
        index, t, s, share = line.split(",")
        mask = grey(folder / f"mask_{int(index):04d}_t{int(t):04d}-{int(s):04d}.png")
        assert mask.shape == (96, 160)
        assert float(share) == pytest.approx((mask > 0).mean(), abs=1e-6)
    with Image.open(folder / "process.webp") as film:
        assert film.n_frames == 4
        assert film.size == (3 * 160, 96)


def test_a_dump_is_bounded_and_selective(upscale, picture, tmp_path):
    done = upscale(picture, "-o", tmp_path / "o.png", "--dump", tmp_path / "d", "--save-masks",
                   "--steps", 10, "--every", 4)  # fmt: skip
    assert done.code == 0
    names = sorted(p.name for p in (tmp_path / "d" / "in").iterdir())
    assert [n for n in names if n.endswith(".png")] == [
        "mask_0000_t0100-0090.png",
        "mask_0004_t0060-0050.png",
        "mask_0008_t0020-0010.png",
        "mask_0009_t0010-0000.png",
    ]
    steps = json.loads((tmp_path / "d" / "in" / "steps.json").read_text())
    assert len(steps["steps"]) == 10


def test_a_dump_works_with_tiles_several_passes_and_equal_names(upscale, tmp_path):
    (tmp_path / "a").mkdir()
    first = save_photo(tmp_path / "in.png", 24, 40)
    second = save_photo(tmp_path / "a" / "in.png", 24, 40, seed=1)
    (tmp_path / "out").mkdir()
    done = upscale(first, "-o", tmp_path / "x.png", "--dump", tmp_path / "d", "--tile", 64,
                   "--scale", 8)  # fmt: skip
    assert done.code == 0, done.err
    names = {p.name for p in (tmp_path / "d" / "in").iterdir()}
    assert {"mask_0000_t0100-0075.png", "pass2_mask_0000_t0100-0075.png"} <= names
    shutil.rmtree(tmp_path / "d")
    upscale(first, second, "--dump", tmp_path / "d")
    assert {p.name for p in (tmp_path / "d").iterdir()} == {"in", "in-2"}


def test_tiles_show_the_same_process(upscale, picture, tmp_path):
    for name, tile in (("whole", 0), ("tiles", 64)):
        upscale(picture, "-o", tmp_path / f"{name}.png", "--dump", tmp_path / name, "--tile", tile)
    for path in sorted((tmp_path / "whole" / "in").glob("mask_*.png")):
        assert np.array_equal(grey(path), grey(tmp_path / "tiles" / "in" / path.name))


def test_fidelity_one_makes_no_call_and_a_dump_without_steps(upscale, picture, tmp_path):
    options = ("--fidelity", 1, "--dump", tmp_path / "d", "--report", tmp_path / "r.html")
    done = upscale(picture, "-o", tmp_path / "o.png", *options)
    assert done.code == 0, done.err
    assert {p.name for p in (tmp_path / "d" / "in").iterdir()} == {
        "attention.png", "steps.csv", "steps.json",
    }  # fmt: skip


@pytest.fixture
def report(upscale, tmp_path):
    """A picture with a hostile name, and the page about its run."""
    path = save_photo(tmp_path / "in<script>alert(1)<&script>.png", 24, 40)
    out = ("-o", tmp_path / "o.png", "--report", tmp_path / "r.html")
    done = upscale(path, *out, "--seed", 3, "--attention", "edge")
    assert done.code == 0, done.err
    return tmp_path / "r.html"


def document(report):
    text = report.read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', text, flags=re.DOTALL).group(1))


def test_a_report_is_one_file_that_asks_for_nothing(report):
    text = report.read_text()
    assert text.count("<script") == 2
    addresses = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)[a-z]+:[^\s\"')]+", text)
    assert addresses == []
    assert "default-src 'none'" in text
    content = document(report)
    assert content["title"].startswith("in<script>")
    assert len(content["rows"]) == len(content["frames"]) == 4
    facts = dict(content["facts"])
    assert facts["seed"] == "3"
    assert facts["sampler"] == "ddim"
    assert facts["tiles"] == "4 computed, 4 planned"


def test_the_reports_command_makes_the_same_picture(report, yoda, tmp_path):
    import shlex

    before = (tmp_path / "o.png").read_bytes()
    arguments = shlex.split(document(report)["command"])
    assert arguments[:2] == ["yoda", "upscale"]
    (tmp_path / "o.png").unlink()
    assert yoda(*arguments[1:]).code == 0
    assert (tmp_path / "o.png").read_bytes() == before


def test_a_report_replaces_a_report_and_nothing_else(report, upscale, picture, tmp_path):
    again = ("-o", tmp_path / "o2.png", "--report", report)
    assert upscale(picture, *again).code == 0
    report.write_text("mine")
    assert upscale(picture, *again).code == 7
    assert report.read_text() == "mine"
    assert upscale(picture, *again, "--overwrite").code == 0
    assert upscale(picture, "-o", tmp_path / "o3.png", "--report", picture).code == 7
    assert upscale(picture, "-o", tmp_path / "o3.png", "--report", tmp_path / "no" / "r").code == 7
    assert not (tmp_path / "o3.png").exists()


@pytest.mark.parametrize("name", ["map.png", "map.npy"])
def test_a_place_that_is_named_gets_the_map(yoda, picture, tmp_path, name):
    options = ("--source", "edge", "--device", "cpu")
    done = yoda("attention", picture, "-o", tmp_path / name, *options)
    assert (done.code, done.out) == (0, f"{tmp_path / name}\n"), done.err
    assert (tmp_path / name).is_file()
    done = yoda("attention", picture, "-o", tmp_path / "maps", *options)
    assert done.out == f"{tmp_path / 'maps' / 'in_attention.png'}\n"


def test_one_file_takes_one_map_of_its_kind(yoda, picture, tmp_path):
    command = ("attention", picture, "--source", "edge", "--save-map")
    done = yoda(*command, "-o", tmp_path / "map.png", "--overlay")
    assert (done.code, "2 are wanted; give a folder" in done.err) == (2, True)
    done = yoda(*command, "-o", tmp_path / "map.png", "--format", "npy")
    assert (done.code, "should end in .npy" in done.err) == (2, True)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_works_in_a_browser(report, tmp_path, scheme):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        split = "getComputedStyle(document.getElementById('compare')).getPropertyValue('--at')"
        assert page.evaluate(split) == "50%"
        page.locator("#split").focus()
        for _ in range(5):
            page.keyboard.press("ArrowLeft")
        assert page.evaluate(split) == "45%"
        clip = "getComputedStyle(document.querySelector('.over')).clipPath"
        assert "55%" in page.evaluate(clip)
        assert page.locator("#step-text").inner_text().startswith("step 1 of 4: t = 100 to 75")
        before = page.locator("#mask").get_attribute("src")
        page.locator("#step").focus()
        page.keyboard.press("End")
        assert page.locator("#step-text").inner_text().startswith("step 4 of 4: t = 25 to 0, 100")
        assert page.locator("#mask").get_attribute("src") != before
        assert page.locator("#chart rect").count() == 4
        assert page.locator("#lens canvas").count() == 2
        sizes = "[...document.images].map(i => i.naturalWidth)"
        assert min(page.evaluate(sizes)) > 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        whole = page.locator("#command").inner_text()
        assert whole == page.evaluate("data.command")
        lines = (
            "[...document.querySelectorAll('#command span')].map(s => s.getClientRects().length)"
        )
        assert set(page.evaluate(lines)) == {1}  # no option is cut in two
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(251, 251, 249)" if scheme == "light" else "rgb(21, 23, 27)"
        )
        assert page.title().startswith("in<script>")
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
