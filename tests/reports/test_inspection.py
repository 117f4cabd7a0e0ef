"""What ``yoda upscale --dump`` and ``--report`` show of a run."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from fakes import save_photo
from PIL import Image


@pytest.fixture
def picture(tmp_path):
    return save_photo(tmp_path / "in.png", 24, 40)


def grey(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


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
    masks = sorted((tmp_path / "whole" / "in").glob("mask_*.png"))
    assert masks
    for path in masks:
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
