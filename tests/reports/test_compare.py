"""yoda compare: two pictures as one page that asks for nothing."""

import json
import math
import re
import shutil

import numpy as np
import pytest
from fakes import save_photo
from PIL import Image


@pytest.fixture
def pair(tmp_path):
    """A picture, and the same with one square changed by 40 levels."""
    first = save_photo(tmp_path / "a.png", 48, 64)
    pixels = np.asarray(Image.open(first).convert("RGB")).astype(int)
    pixels[8:16, 40:48] = np.where(pixels[8:16, 40:48] > 127, -40, 40) + pixels[8:16, 40:48]
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "b.png")
    return first, tmp_path / "b.png"


def document(page):
    text = page.read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', text, flags=re.DOTALL).group(1))


def test_the_page_stands_beside_the_second_and_says_how_much_they_differ(yoda, pair, tmp_path):
    done = yoda("compare", *pair, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["page"] == str(tmp_path / "b_compared.html")
    assert found["most"] == 40
    assert found["seen_share"] == pytest.approx(64 / (48 * 64))
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / (40**2 / 48)))
    content = document(tmp_path / "b_compared.html")
    x, y = content["spot"]
    assert 38 < x < 50
    assert 6 < y < 18
    assert (content["width"], content["height"]) == (64, 48)


def test_alike_pictures_are_said_to_be_alike(yoda, pair, tmp_path):
    done = yoda("compare", pair[0], pair[0], "-o", tmp_path / "same.html")
    assert "all pixels are alike" in done.err
    assert dict(document(tmp_path / "same.html")["facts"])["largest difference"] == "0 of 255"


def test_a_smaller_picture_is_laid_over_a_larger_one_and_another_shape_is_refused(yoda, tmp_path):
    small, large = save_photo(tmp_path / "s.png", 12, 16), save_photo(tmp_path / "l.png", 48, 64)
    assert yoda("compare", small, large, "-o", tmp_path / "p.html").code == 0
    assert "stretched" in document(tmp_path / "p.html")["shown"]
    done = yoda("compare", save_photo(tmp_path / "q.png", 12, 12), large)
    assert done.code == 2
    assert "different proportions" in done.err


def test_the_page_replaces_a_page_and_nothing_else(yoda, pair, tmp_path):
    page = tmp_path / "p.html"
    assert yoda("compare", *pair, "-o", page).code == 0
    assert yoda("compare", *pair, "-o", page).code == 0
    page.write_text("mine")
    assert yoda("compare", *pair, "-o", page).code == 7
    assert page.read_text() == "mine"
    assert yoda("compare", *pair, "-o", pair[0]).code == 7
    assert yoda("compare", pair[0], tmp_path / "no.png").code == 3


def test_the_page_is_one_file_that_asks_for_nothing(yoda, pair, tmp_path):
    assert yoda("compare", *pair, "-o", tmp_path / "p.html").code == 0
    text = (tmp_path / "p.html").read_text()
    assert "default-src 'none'" in text
    assert re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)[a-z]+:[^\s\"')]+", text) == []


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_slider_lens_and_difference_work_in_a_browser(yoda, pair, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    yoda("compare", *pair, "-o", tmp_path / "p.html")
    small = save_photo(tmp_path / "s.png", 12, 16)
    yoda("compare", pair[0], small, "-o", tmp_path / "q.html")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "p.html").as_uri())
        assert page.locator("#lens canvas").count() == 3
        page.locator("#zoom").select_option("8")
        page.wait_for_function("document.querySelector('#spot').style.width !== ''")
        middle = """() => { const c = document.querySelectorAll('#lens canvas')[2];
            return [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data]; }"""
        assert all(150 <= level <= 170 for level in page.evaluate(middle)[:3])  # four times 40
        page.locator("#lens").focus()
        for _ in range(20):
            page.keyboard.press("Shift+ArrowLeft")
        assert max(page.evaluate(middle)[:3]) < 40
        page.locator("#difference").check()
        assert "differs" in page.locator("#compare").get_attribute("class")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.goto((tmp_path / "q.html").as_uri())
        width = "document.querySelector('#compare').clientWidth"
        page.wait_for_function(f"{width} === 64")  # the larger one's, whichever comes first
        browser.close()
    assert [line for line in said if not line.startswith("Canvas2D: Multiple readback")] == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
