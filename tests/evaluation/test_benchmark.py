"""``yoda bench`` and ``yoda metrics``: data sets, methods, the journal, the page."""

import csv
import io
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import faults
import numpy as np
import pytest
import torch
from fakes import photo, save_photo
from PIL import Image

import yoda_cli
from yoda_cli.errors import WeightsError
from yoda_cli.evaluation import methods as methods
from yoda_cli.evaluation.datasets import find_dataset, pair_by_name, pairs_of
from yoda_cli.evaluation.metrics import psnr
from yoda_cli.images.resize import imresize
from yoda_cli.weights import Cache, Watch, load_registry

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def pictures(tmp_path):
    """Three HR pictures, one of odd size."""
    folder = tmp_path / "Mini"
    folder.mkdir()
    for i, size in enumerate([(64, 96), (65, 67), (80, 72)]):
        save_photo(folder / f"p{i}.png", *size, seed=i)
    return folder


@pytest.fixture
def bench(yoda, tiny_checkpoint, tmp_path):
    def call(*arguments):
        options = ("--model", tiny_checkpoint, "--precision", "fp32", "-q")
        return yoda("bench", *arguments, *options, "--cache-dir", tmp_path / "cache")

    return call


def unmeasured(document):
    """What must be the same in every run."""
    left_out = {"seconds", "attention_seconds", "peak_mb", "date", "command"}

    def strip(value):
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in left_out}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(document)


def test_the_sample_set_works_at_once_and_offline(yoda, tmp_path):
    done = yoda("bench", "--dataset", "sample", "--limit", 1, "--peer", "bicubic", "--offline",
                "--cache-dir", tmp_path, "--steps", 2, "--json", "-q")  # fmt: skip
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["schema"] == 1
    means = {line["method"]: line for line in document["summary"]}
    assert means["yoda"]["psnr"] > means["bicubic"]["psnr"]
    assert means["yoda"]["texture"] < means["bicubic"]["texture"]
    assert means["yoda"]["gflop"] > 1
    assert "PSNR in dB on Y, 4-pixel border" in document["definitions"]["psnr"]


def test_the_table_names_arms_and_definitions(bench, pictures):
    done = bench("--dataset", pictures, "--peer", "bicubic", "--peer", "base", "--peer", "plain")
    assert done.code == 0, done.err
    assert re.search(r"mini, ×4", done.out)
    for method in ("yoda", "bicubic", "base", "plain"):
        assert re.search(rf"^ +{method} +3 ", done.out, flags=re.MULTILINE)
    assert "texture: texture distance" in done.out


def test_rows_are_what_the_metrics_say(bench, pictures):
    done = bench("--dataset", pictures, "--peer", "bicubic", "--json")
    rows = [r for r in json.loads(done.out)["rows"] if r["method"] == "bicubic"]
    for row in rows:
        with Image.open(pictures / f"{row['picture']}.png") as image:
            hr = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
        height, width = (n // 4 * 4 for n in hr.shape[-2:])
        hr = hr[..., :height, :width]
        lr = imresize(hr, scale=0.25)
        up = (imresize(lr.float() / 255, scale=4).clamp(0, 1) * 255).round() / 255
        assert row["psnr"] == pytest.approx(psnr(up, hr.float() / 255, border=4), abs=1e-5)
        assert (row["width"], row["height"]) == (width, height)


def test_channel_and_border_change_the_numbers_and_their_definition(bench, pictures):
    documents = [
        json.loads(bench("--dataset", pictures, "--peer", "bicubic", "--json", *more).out)
        for more in ((), ("--channel", "rgb"), ("--border", "0"))
    ]
    assert len({d["summary"][1]["psnr"] for d in documents}) == 3
    assert len({d["definitions"]["psnr"] for d in documents}) == 3


@pytest.mark.parametrize("peer", [p for p in methods.PEERS if not p.startswith("dino")])
def test_every_peer_runs(bench, pictures, peer):
    done = bench("--dataset", pictures, "--limit", 1, "--peer", peer, "--json")
    assert done.code == 0, done.err
    lines = {line["method"]: line for line in json.loads(done.out)["summary"]}
    assert set(lines) == {"yoda", peer}
    masked = lines["yoda"]["calls"]  # an idle first step has none
    calls = {"bicubic": 0, "lanczos": 0, "base": 0, "shuffled": masked, "faithful": masked}
    assert lines[peer]["calls"] == calls.get(peer, 4)
    assert 0 < masked <= 4


def test_shuffled_attention_has_the_same_values_elsewhere():
    attention = photo(37, 50)[:, :1]
    moved = methods.shuffle(attention)
    assert torch.equal(moved.flatten().sort().values, attention.flatten().sort().values)
    assert not torch.equal(moved, attention)
    assert torch.equal(moved, methods.shuffle(attention))
    blocks = attention[..., :32, :48].unfold(2, 8, 8).unfold(3, 8, 8).reshape(-1, 64)
    shuffled = moved[..., :32, :48].unfold(2, 8, 8).unfold(3, 8, 8).reshape(-1, 64)
    assert sorted(map(tuple, blocks.tolist())) == sorted(map(tuple, shuffled.tolist()))


def test_a_network_of_somebody_elses_runs_beside_ours(bench, pictures, tmp_path):
    spandrel = pytest.importorskip("spandrel.architectures.Compact")
    torch.manual_seed(0)
    net = spandrel.Compact(num_feat=8, num_conv=2, upscale=4)
    torch.save(net.state_dict(), tmp_path / "Theirs.pth")
    done = bench("--dataset", pictures, "--peer", tmp_path / "Theirs.pth", "--json")
    assert done.code == 0, done.err
    assert "Theirs" in {line["method"] for line in json.loads(done.out)["summary"]}
    torch.save(spandrel.Compact(num_feat=8, num_conv=2, upscale=2).state_dict(), tmp_path / "2.pth")
    done = bench("--dataset", pictures, "--peer", tmp_path / "2.pth")
    assert (done.code, "does not enlarge by 4" in done.err) == (2, True)
    (tmp_path / "bad.pth").write_bytes(b"x")
    assert bench("--dataset", pictures, "--peer", tmp_path / "bad.pth").code == 5


@pytest.mark.parametrize("kind", methods.ABLATIONS)
def test_ablations_vary_one_setting(bench, pictures, tmp_path, kind):
    done = bench("--dataset", pictures, "--limit", 2, "--ablate", kind, "--json",
                 "--plots", tmp_path / "plots", "--html", tmp_path / "a.html")  # fmt: skip
    assert done.code == 0, done.err
    lines = json.loads(done.out)["summary"]
    assert len(lines) == len(methods.ABLATIONS[kind][1])
    assert all(line["method"].startswith(kind) for line in lines)
    area = (tmp_path / "plots" / "mini_area.svg").read_text()
    assert area.startswith("<svg")
    assert area.count("<polyline") == len(lines)
    assert (tmp_path / "plots" / f"mini_{kind}_psnr.svg").is_file()
    assert all((line["attention_seconds"] is not None) == (kind == "attention") for line in lines)
    mean, deviation = lines[0]["active"][-1]
    assert (mean, deviation) == (1, 0)


def test_a_stopped_run_goes_on_to_the_same_document(bench, pictures, tmp_path):
    arguments = ("--dataset", pictures, "--peer", "bicubic", "--json")
    whole = json.loads(bench(*arguments).out)
    (journal,) = (tmp_path / "cache" / "bench").glob("*.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 6
    journal.write_text("".join(lines[:3]) + lines[3][:40])  # killed while writing
    resumed = json.loads(bench(*arguments).out)
    assert unmeasured(resumed) == unmeasured(whole)
    again = json.loads(bench(*arguments).out)
    assert [r["seconds"] for r in again["rows"]] == [r["seconds"] for r in resumed["rows"]]
    bench(*arguments, "--fresh")
    assert len(journal.read_text().splitlines()) == 6


def test_hr_and_lr_pair_by_name(tmp_path, bench):
    root = tmp_path / "Set"
    (root / "HR").mkdir(parents=True)
    (root / "LR_bicubic" / "X4").mkdir(parents=True)
    for i in range(2):
        save_photo(root / "HR" / f"080{i}.png", 66, 64, seed=i)
        save_photo(root / "LR_bicubic" / "X4" / f"080{i}x4.png", 16, 16, seed=i)
    pairs = pairs_of(root, 4)
    assert [(p.name, p.lr.name) for p in pairs] == [("0800", "0800x4.png"), ("0801", "0801x4.png")]
    assert bench("--dataset", root, "--peer", "bicubic").code == 0
    (root / "LR_bicubic" / "X4" / "0801x4.png").rename(root / "LR_bicubic" / "X4" / "0809x4.png")
    problems = {p.name: p.problem for p in pair_by_name(root / "HR", root / "LR_bicubic" / "X4", 4)}
    assert problems["0800"] == ""
    assert problems["0801"].startswith("no picture of this name in")
    assert problems["0809"].endswith("HR")
    done = bench("--dataset", root, "--peer", "bicubic", "--json")
    assert done.code == 4
    document = json.loads(done.out)
    assert {row["picture"] for row in document["failed"]} == {"0801", "0809"}
    assert document["summary"][0]["pictures"] == 1


def test_damaged_pictures_are_enlarged_as_yoda_upscale_does_it(yoda, tmp_path):
    """The damage is estimated for each picture, and can be told; journals keep the two apart."""
    root = tmp_path / "Noisy"
    (root / "HR").mkdir(parents=True)
    save_photo(root / "HR" / "a.png", 160, 160, seed=1)
    with Image.open(root / "HR" / "a.png") as image:
        lr = np.asarray(image.convert("RGB").resize((40, 40), Image.Resampling.BICUBIC), float)
    noisy = np.clip(lr + np.random.default_rng(0).normal(0, 25, lr.shape), 0, 255).round()
    (root / "LR").mkdir()
    Image.fromarray(noisy.astype(np.uint8)).save(root / "LR" / "a.png")

    def measured(*more):
        done = yoda("bench", "--dataset", root, "--peer", "base", "--json", "-q", "--precision",
                    "fp32", "--cache-dir", tmp_path / "cache", *more)  # fmt: skip
        assert done.code == 0, done.err
        return {row["method"]: row["psnr"] for row in json.loads(done.out)["rows"]}

    def enlarged(**asked):
        done = yoda_cli.upscale(root / "LR" / "a.png", precision="fp32", **asked)
        x, hr = (
            torch.from_numpy(np.array(im.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
            for im in (done.image, Image.open(root / "HR" / "a.png"))
        )
        return pytest.approx(psnr(x, hr, border=4), abs=1e-3)

    usual, plain, smooth = measured(), measured("--denoise", "none"), measured("--fidelity", "1")
    assert usual["yoda"] == enlarged()
    assert usual["base"] == enlarged(fidelity=1.0)
    assert plain["yoda"] == enlarged(denoise=0.0)
    assert usual["yoda"] > plain["yoda"] + 0.5
    assert smooth["yoda"] == usual["base"]


def test_bad_pictures_are_reported_and_the_rest_is_done(tmp_path, bench, pictures):
    (pictures / "broken.png").write_bytes(b"\x89PNG not")
    Image.new("RGB", (3, 3)).save(pictures / "tiny.png")
    done = bench("--dataset", pictures, "--peer", "bicubic", "--json")
    assert done.code == 4
    document = json.loads(done.out)
    assert {row["picture"] for row in document["failed"]} == {"broken", "tiny"}
    assert {row["picture"] for row in document["rows"] if "psnr" in row} == {"p0", "p1", "p2"}
    assert document["summary"][0]["pictures"] == 3
    assert "mini/broken" in done.err


def test_sizes_that_do_not_match_are_reported(tmp_path, bench):
    root = tmp_path / "Set"
    (root / "HR").mkdir(parents=True)
    (root / "LR").mkdir()
    save_photo(root / "HR" / "a.png", 64, 64)
    save_photo(root / "LR" / "a.png", 12, 16)
    done = bench("--dataset", root, "--peer", "bicubic")
    assert done.code == 4
    assert "a.png times 4 is 64×48" in done.err


def test_a_small_picture_ends_no_benchmark(tmp_path, bench):
    (tmp_path / "Set").mkdir()
    save_photo(tmp_path / "Set" / "a.png", 48, 64)
    save_photo(tmp_path / "Set" / "tiny.png", 8, 8)
    done = bench("--dataset", tmp_path / "Set", "--peer", "bicubic", "--json")
    assert done.code == 4
    assert "set/tiny: a border of 4 leaves nothing of 8×8 pixels" in done.err
    assert {row["pictures"] for row in json.loads(done.out)["summary"]} == {1}


def test_bad_wishes(bench, pictures, tmp_path):
    for arguments, code, message in [
        (("--dataset", "nosuch"), 2, "unknown data set 'nosuch'"),
        (("--dataset", "no/such"), 3, "no such folder"),
        (("--dataset", "set5"), 5, "--data-root FOLDER"),
        (("--dataset", pictures, "--metric", "vibes"), 2, "unknown metric 'vibes'"),
        (("--dataset", pictures, "--peer", "vibes"), 2, "unknown peer 'vibes'"),
        (("--dataset", pictures, "--ablate", "vibes"), 2, "unknown ablation"),
        (("--dataset", pictures, "--channel", "cmyk"), 2, "use y or rgb"),
        (("--dataset", pictures, "--border", "99"), 4, "a border of 99 leaves nothing of "),
        (("--dataset", pictures, "--border", "-1"), 2, "0 or more"),
        (("--dataset", "div2k", "--offline"), 5, "yoda weights pull DIV2K_valid_HR.zip"),
        (("--dataset", "div2k", "--offline"), 5, "by hand from https://data.vision.ee.ethz.ch"),
    ]:
        done = bench(*arguments)
        assert (done.code, message in done.err) == (code, True), (arguments, done.err)
    (tmp_path / "empty").mkdir()
    assert bench("--dataset", tmp_path / "empty").code == 3


def test_a_known_set_is_found_under_the_data_root(bench, pictures, tmp_path):
    pictures.rename(tmp_path / "SET5")
    done = bench("--dataset", "set5", "--data-root", tmp_path, "--peer", "bicubic")
    assert done.code == 0, done.err
    assert "set5, ×4" in done.out
    assert "set5, psnr, as printed: bicubic 28.42, SRCNN 30.48" in done.out
    rgb = bench(
        "--dataset", "set5", "--data-root", tmp_path, "--peer", "bicubic", "--channel", "rgb"
    )
    assert "as printed" not in rgb.out


def archive(names, size):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        for i, name in enumerate(names):
            picture = io.BytesIO()
            pixels = (photo(*size, seed=i)[0].permute(1, 2, 0) * 255).byte().numpy()
            Image.fromarray(pixels).save(picture, "PNG")
            zipped.writestr(name, picture.getvalue())
    return packed.getvalue()


def test_div2k_is_downloaded_unpacked_and_paired(tmp_path):
    high = archive(["DIV2K_valid_HR/0801.png", "DIV2K_valid_HR/0802.png"], (64, 80))
    low = archive([f"DIV2K_valid_LR_bicubic/X4/080{i}x4.png" for i in (1, 2)], (16, 20))
    text = Path("weights.toml" if Path("weights.toml").exists() else
                Path(__file__).parents[2] / "weights.toml").read_text()  # fmt: skip
    base = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
    with faults.serving(high) as first, faults.serving(low, script=[faults.cut(3000)]) as second:
        text = text.replace(f"{base}DIV2K_valid_HR.zip", first.url)
        text = text.replace(f"{base}DIV2K_valid_LR_bicubic_X4.zip", second.url)
        (tmp_path / "weights.toml").write_text(text)
        registry, cache = load_registry([tmp_path / "weights.toml"]), Cache(tmp_path / "cache")
        found = find_dataset("div2k", 4, None, registry, cache, Watch())
        assert [(p.name, p.lr.name) for p in found.pairs] == [
            ("0801", "0801x4.png"), ("0802", "0802x4.png"),
        ]  # fmt: skip
        again = find_dataset("DIV2K", 2, None, registry, cache, Watch())
        assert [p.lr for p in again.pairs] == [None, None]  # no LR of that factor
        assert len(first.requests) == 1
    with pytest.raises(WeightsError, match="--data-root"):
        find_dataset("urban100", 4, tmp_path, registry, cache, Watch())


def test_a_metric_that_was_asked_for_and_has_no_weights_ends_the_command(bench, pictures):
    arguments = ("--dataset", pictures, "--limit", 1, "--peer", "bicubic", "--offline", "--json")
    done = bench(*arguments, "--metric", "psnr", "--metric", "lpips-alex")
    assert done.code == 5
    assert "lpips-alex: " in done.err
    assert "yoda weights pull alexnet-owt-7be5be79.pth" in done.err
    assert done.out == ""


def test_lpips_and_dists_run_with_imported_weights(bench, yoda, pictures, tmp_path):
    import torchvision

    torch.manual_seed(0)
    for name, target in (("alexnet", "lpips-alex"), ("vgg16", "lpips-vgg")):
        with torch.device("meta"):
            shapes = getattr(torchvision.models, name)(weights=None).state_dict()
        state = {
            k: torch.randn(v.shape) * 0.05 if "features" in k else torch.zeros(()).expand(v.shape)
            for k, v in shapes.items()
        }
        torch.save(state, tmp_path / f"{name}.pth")
        done = yoda("weights", "import", tmp_path / f"{name}.pth", "--as", target,
                    "--cache-dir", tmp_path / "cache")  # fmt: skip
        assert done.code == 0, done.err
    names = ("lpips-alex", "lpips-vgg", "dists")
    done = bench("--dataset", pictures, "--limit", 1, "--peer", "bicubic", "--json", "--offline",
                 *(word for name in names for word in ("--metric", name)))  # fmt: skip
    assert done.code == 0, done.err
    for row in json.loads(done.out)["rows"]:
        assert all(row[name] > 0 for name in names)


def test_csv_has_every_row(bench, pictures, tmp_path):
    done = bench("--dataset", pictures, "--peer", "bicubic", "--csv", tmp_path / "a.csv", "--json")
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    theirs = json.loads(done.out)["rows"]
    assert [(r["picture"], r["method"]) for r in rows] == [
        (r["picture"], r["method"]) for r in theirs
    ]
    assert [float(r["psnr"]) for r in rows] == [r["psnr"] for r in theirs]


@pytest.mark.slow
def test_speed_mode_gives_ratios_to_the_first_arm(bench, pictures, monkeypatch):
    from yoda_cli.evaluation import arithmetic, processes, scaling, speed

    monkeypatch.setattr(speed, "ROUNDS", 2)
    monkeypatch.setattr(scaling, "ROUNDS", 1)
    monkeypatch.setattr(scaling, "LONG", 4)
    monkeypatch.setattr(processes, "ROUNDS", 2)
    monkeypatch.setattr(arithmetic, "SIDE", 64)
    nothing = [sys.executable, "-c", "pass"]
    busy = [*nothing[:2], "print(sum(range(10**7)))"]
    stand_ins = {processes.TORCH: nothing, "yoda upscale": busy}
    monkeypatch.setattr(processes, "commands_of", lambda *_: stand_ins)
    done = bench("--dataset", pictures, "--speed", "--peer", "base", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["baseline"] == "yoda"
    assert {t["width"] for t in document["timings"]} == {64, 128, 192, 256}
    for timing in document["timings"]:
        assert timing["fastest"] <= timing["median"] <= timing["slowest"]
        assert (timing["ratio"] == 1) == (timing["method"] == "yoda")
        assert timing["gflop"] > 0
    assert document["environment"]["torch"] == torch.__version__
    first, network, call = document["arithmetic"]
    assert (first["ratio"], first["gflop"]) == (1, 2 * 64**3 / 1e9)
    assert network["gflop_per_second"] > 0 < call["gflop"]
    base, work = document["processes"]
    assert (base["ratio"], len(base["runs"])) == (1, 2)
    assert work["ratio"] > 1.5
    assert work["peak_mb"] > 3
    assert {gain["what"].split(", ")[-1] for gain in document["gains"]} >= {"batched"}
    assert all(gain["ratio"] > 0 and len(gain["seconds"]) == 1 for gain in document["gains"])
    figures = {(one["what"], one["over"]): one["ratio"] for one in document["figures"]}
    assert figures["yoda upscale: processor", processes.TORCH] == work["ratio"]
    assert figures["encoder's operations a second", "matrix product"] == network["ratio"]
    done = bench("--dataset", pictures, "--speed", "--peer", "base", "--baseline", "base", "--json")
    document = json.loads(done.out)
    assert document["baseline"] == "base"
    assert all((t["ratio"] == 1) == (t["method"] == "base") for t in document["timings"])
    assert bench("--dataset", pictures, "--speed", "--baseline", "vibes").code == 2


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_sorts_and_shows_pictures_in_a_browser(bench, pictures, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    hostile = pictures / "x<script>alert(1)<&script>.png"
    save_photo(hostile, 64, 64, seed=7)
    done = bench("--dataset", pictures, "--peer", "bicubic", "--html", tmp_path / "b.html")
    assert done.code == 0, done.err
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 800})
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "b.html").as_uri())
        column = page.locator("#rows thead button", has_text="psnr").first
        read = "[...document.querySelectorAll('#rows tbody tr')].map(r => +r.cells[3].textContent)"
        column.press("Enter")
        values = page.evaluate(read)
        assert len(values) == 8
        assert values == sorted(values)
        column.press("Enter")
        assert page.evaluate(read) == sorted(values, reverse=True)
        assert page.locator("#crops img").count() == 4 * 3
        assert min(page.evaluate("[...document.images].map(i => i.naturalWidth)")) > 0
        assert page.locator("#charts svg").count() == 1
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_metrics_of_two_files_and_of_two_folders(yoda, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "sr")
    for path in (tmp_path / "sr").iterdir():
        with Image.open(path) as image:
            image.convert("RGB").point(lambda v: min(255, v + 3)).save(path)
    done = yoda("metrics", tmp_path / "sr" / "p0.png", pictures / "p0.png", "--json", "--border", 0)
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["rows"]
    assert 35 < row["psnr"] < 42
    assert row["colour"] == pytest.approx(3, abs=0.3)
    done = yoda("metrics", tmp_path / "sr", pictures, "--metric", "psnr", "--metric", "ssim")
    assert done.code == 0
    assert all(f"p{i}" in done.out for i in range(3))
    assert yoda("metrics", tmp_path / "sr", pictures / "p0.png").code == 2
    assert yoda("metrics", pictures / "p0.png", pictures / "p1.png").code == 4
    assert yoda("metrics", tmp_path / "none.png", pictures / "p1.png").code == 3
