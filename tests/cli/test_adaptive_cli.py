"""``--adaptive`` as a person meets it: results, plans, reports, refusals; the whole ablation."""

import json
import re
import subprocess
import sys

import pytest
from fakes import save_photo
from PIL import Image

from yoda_cli.evaluation.adaptive import TAUS, compared, lines_between
from yoda_cli.reports.regions import said
from yoda_cli.tiling.windows import Window
from yoda_cli.upscaling.adaptive import RegionRun


@pytest.fixture(autouse=True)
def no_defaults(monkeypatch, tmp_path):
    monkeypatch.setenv("YODA_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture
def adaptive(yoda, tmp_path, tiny_checkpoint):
    """``yoda upscale in.png --adaptive`` on 400×320 output pixels, four regions."""
    save_photo(tmp_path / "in.png", 80, 100)

    def run(*more, source=tmp_path / "in.png"):
        common = ("--adaptive", "--block", 256, "--steps", 20, "-m", tiny_checkpoint)
        return yoda("upscale", source, *common, *more)

    return run


def pixels(path):
    with Image.open(path) as image:
        return image.size, image.tobytes()


def test_a_picture_is_made_and_its_steps_are_told(adaptive, tmp_path):
    done = adaptive("-o", tmp_path / "out.png")
    assert done.code == 0, done.err
    assert re.search(r"in.png: about \d+ tiles? to compute", done.err)
    assert re.search(r"; \d+ (to \d+ )?of 20 steps each", done.err)
    assert pixels(tmp_path / "out.png")[0] == (400, 320)
    record = json.loads(adaptive("-o", tmp_path / "out.png", "--json").out)
    assert record["regions"]["chain"] == 20
    assert record["regions"]["count"] == len(record["regions"]["steps"]) == 4
    assert max(record["regions"]["steps"]) < 20
    assert record["calls"] < record["dense_calls"]


def test_a_plan_says_that_it_is_an_expectation_with_a_range(adaptive, tmp_path):
    done = adaptive("-o", tmp_path / "out.png", "--dry-run")
    assert done.code == 0, done.err
    assert re.search(r"about [\d.]+ s \([\d.]+ to [\d.]+ s\), \d+ tiles \(\d+ to \d+\)", done.out)
    told = json.loads(adaptive("-o", tmp_path / "out.png", "--dry-run", "--json").out)
    made = json.loads(adaptive("-o", tmp_path / "out.png", "--json").out)
    least, most = told["calls_range"]
    assert least <= made["calls"] <= most
    assert least <= told["planned_calls"] <= most
    assert told["seconds_range"][0] <= told["forecast_seconds"] <= told["seconds_range"][1]


def test_a_chain_too_short_to_decide_anything_has_no_range(adaptive, tmp_path):
    told = json.loads(
        adaptive("-o", tmp_path / "out.png", "--dry-run", "--json", "--steps", 12).out
    )
    made = json.loads(adaptive("-o", tmp_path / "out.png", "--json", "--steps", 12).out)
    assert "calls_range" not in told
    assert told["planned_calls"] == made["calls"]


def test_exact_runs_give_the_same_bytes_streamed_skipped_and_with_workers(adaptive, tmp_path):
    pytest.importorskip("pyvips")
    out = tmp_path / "out.png"
    assert adaptive("-o", out, "--exact").code == 0
    expected = pixels(out)
    for more in (("--no-skip",), ("--stream",)):
        assert adaptive("-o", tmp_path / "again.png", "--exact", "--overwrite", *more).code == 0
        assert pixels(tmp_path / "again.png") == expected


@pytest.mark.slow
def test_exact_runs_give_the_same_bytes_for_any_number_of_workers(adaptive, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        save_photo(tmp_path / "in" / f"{i}.png", 80 + i, 100, seed=i)
    for jobs in (1, 2):
        done = adaptive("-o", tmp_path / str(jobs), "-j", jobs, "--exact", source=tmp_path / "in")
        assert done.code == 0, done.err
    for i in range(3):
        one, two = (next((tmp_path / jobs).glob(f"{i}*")) for jobs in ("1", "2"))
        assert one.read_bytes() == two.read_bytes()


def test_the_report_shows_steps_of_regions_and_three_curves(adaptive, tmp_path):
    done = adaptive("-o", tmp_path / "out.png", "--report", tmp_path / "run.html")
    assert done.code == 0, done.err
    page = (tmp_path / "run.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    regions = data["regions"]
    assert regions["map"].startswith("data:image/webp")
    assert regions["said"].startswith("4 regions, ")
    assert 1 <= len(regions["curves"]) <= 3
    for curve in regions["curves"]:
        assert len(curve["times"]) == len(curve["realism"]) == len(curve["fidelity"]) > 0
    assert data["frames"] == []
    assert "--adaptive" in data["command"]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--steps", "1"], 2, "give --steps 2 or more"),
        (["--faithful"], 2, "every region a chain of its own"),
        (["--tau", "0"], 2, "tau 0 is not allowed"),
        (["--tau", "-0.1"], 2, "tau -0.1 is not allowed"),
        (["--leaps", "5,x"], 2, "thousandths such as 5,10,15,20"),
        (["--leaps", "10,5"], 2, "rising thousandths"),
        (["--block", "256", "--tile", "512"], 2, "a region of 256 pixels is smaller than a tile"),
        (["--regressor", "none.safetensors"], 5, "no such gain regressor"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_torch_is_loaded(tmp_path, more, code, said):
    save_photo(tmp_path / "in.png", 8, 8)
    program = (
        "import sys; from yoda_cli.cli import run; "
        f"code = run(['upscale', 'in.png', '--adaptive', *{more!r}]); "
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split() == [str(code), "False"]
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_dump_and_options_without_adaptive_are_refused(adaptive, yoda, tmp_path):
    done = adaptive("-o", tmp_path / "out.png", "--dump", tmp_path / "dump")
    assert (done.code, "--report shows them" in done.err) == (2, True)
    done = yoda("upscale", tmp_path / "in.png", "--leaps", "5,10")
    assert (done.code, "add --adaptive" in done.err) == (2, True)


def test_the_ablation_prints_the_curve_beside_its_rivals(yoda, tmp_path, tiny_checkpoint):
    (tmp_path / "set").mkdir()
    save_photo(tmp_path / "set" / "a.png", 64, 72)
    common = ("bench", "--dataset", tmp_path / "set", "--ablate", "adaptive", "--steps", 9,
              "-m", tiny_checkpoint, "--cache-dir", tmp_path / "cache")  # fmt: skip
    done = yoda(*common, "--json", "--plots", tmp_path / "plots")
    assert done.code == 0, done.err
    summary = {line["method"]: line for line in json.loads(done.out)["summary"]}
    uniform = [f"uniform {steps}" for steps in (9, 8, 4, 2, 1)]
    judged = [f"{name} {tau:g}" for tau in TAUS for name in ("measured", "oracle")]
    assert list(summary) == [*uniform, *judged]
    assert summary["oracle 0.005"]["gflop"] < summary["uniform 9"]["gflop"]
    assert summary["measured 0.005"]["calls"] < summary["uniform 9"]["calls"]
    chart = (tmp_path / "plots" / "set_adaptive_psnr.svg").read_text()
    assert all(f">{name}</text>" in chart for name in ("uniform", "measured", "oracle"))
    table = yoda(*common).out
    assert "set, oracle 0.005: " in table
    assert "times less arithmetic" in table


def test_a_run_is_compared_with_the_cheapest_uniform_chain_that_is_as_good():
    def line(method, gflop, psnr, texture):
        return {"method": method, "gflop": gflop, "psnr": psnr, "texture": texture, "seconds": 1.0}

    chains = [line("uniform 50", 50, 27.0, 0.3), line("uniform 8", 8, 27.0, 0.3),
              line("uniform 4", 4, 27.0, 0.302), line("uniform 2", 2, 26.0, 0.3)]  # fmt: skip
    said = compared(line("oracle 0.005", 10, 27.0, 0.3), chains)
    assert "5.00 times less arithmetic" in said
    assert "equal to it; uniform 4 is as good at 0.40 of it" in said
    said = compared(line("oracle 0.005", 10, 27.3, 0.3), chains)
    assert said.endswith("no uniform chain of its cost is as good")
    assert "not as good as it" in compared(line("oracle 0.005", 10, 26.9, 0.3), chains)
    assert compared(line("a", 1, 27.0, 0.3), chains).endswith("no uniform chain takes as little")


def test_seams_are_looked_for_in_the_middle_of_what_regions_share():
    def region(top, left, bottom, right):
        from yoda_cli.tiling.windows import Window

        return RegionRun(Window(top, left, bottom, right), (9,), (), (), (), 0, left=False)

    regions = [region(0, 0, 288, 288), region(0, 224, 288, 512)]
    assert lines_between(regions, 1) == ((), (256,))
    assert lines_between(regions, 4) == ((), (1024,))
    assert lines_between([], 1) == ((), ())


def test_regions_of_one_length_are_said_to_have_that_length():
    window = Window(0, 0, 8, 8)
    runs = [RegionRun(window, (9,) * n, (), (), (), 0, left=False) for n in (3, 3, 5)]
    assert said(runs[:2], 9).startswith("2 regions, 3 of 9 steps, 3.0 on average")
    assert said(runs, 9).startswith("3 regions, 3 to 5 of 9 steps, 3.7 on average")
