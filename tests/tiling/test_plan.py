"""Partitions are the cheapest, plans count to the unit, budgets are met, exact means exact."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import enlarge, fake_model, photo, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.yoda import time_mask
from yoda_cli.errors import UsageError
from yoda_cli.models import calibration as costs
from yoda_cli.models import timing
from yoda_cli.models.calibration import costs_of
from yoda_cli.tiling.budget import spend
from yoda_cli.tiling.cost import Costs
from yoda_cli.tiling.partition import Canvas, partitions
from yoda_cli.tiling.plan import forecast_seconds
from yoda_cli.upscaling import blocks as block_runs
from yoda_cli.upscaling import pixel
from yoda_cli.upscaling.blocks import begin
from yoda_cli.upscaling.checks import check_options
from yoda_cli.upscaling.memory_limits import (
    LARGEST_WINDOW,
    LEAN_BLOCK,
    LEAN_PIXELS,
    WHOLE_PIXELS,
    largest_window,
    make_blocks,
)
from yoda_cli.upscaling.pipeline import plan_picture
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer


def options(**changes):
    return UpscaleOptions(**{"steps": 5, "lower_bound": 0.1, **changes})


def cost_of(cores, canvas):
    """By the definition: window pixels plus overhead of every active core."""
    total = 0
    for core, active in cores:
        tall = min(core.bottom + canvas.halo, canvas.height) - max(core.top - canvas.halo, 0)
        wide = min(core.right + canvas.halo, canvas.width) - max(core.left - canvas.halo, 0)
        total += (tall * wide + canvas.overhead) * active
    return total


def cheapest(active, canvas, top=0, left=0, h=None, w=None):
    """The best guillotine partition's cost by plain recursion."""
    h, w = h or active.shape[0], w or active.shape[1]
    if not active[top : top + h, left : left + w].any():
        return 0
    best = cost_of([(canvas.core(top, left, h, w), True)], canvas)
    for a in range(1, h):
        best = min(best, cheapest(active, canvas, top, left, a, w)
                   + cheapest(active, canvas, top + a, left, h - a, w))  # fmt: skip
    for a in range(1, w):
        best = min(best, cheapest(active, canvas, top, left, h, a)
                   + cheapest(active, canvas, top, left + a, h, w - a))  # fmt: skip
    return best


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**16 - 1), st.sampled_from([0, 50, 900])
)
def test_a_partition_covers_all_once_and_is_the_cheapest(rows, columns, bits, overhead):
    active = np.array([bits >> i & 1 for i in range(rows * columns)], dtype=bool)
    active = active.reshape(rows, columns)
    canvas = Canvas(rows * 16 - 5, columns * 16 - 3, 16, 4, overhead, 1e9)
    (cores,) = partitions(active[None], canvas)
    seen = np.zeros((canvas.height, canvas.width), dtype=int)
    for core, needed in cores:
        seen[core.top : core.bottom, core.left : core.right] += 1
        cells = active[
            core.top // 16 : -(-core.bottom // 16), core.left // 16 : -(-core.right // 16)
        ]
        assert needed == cells.any()
    assert (seen == 1).all()
    assert cost_of(cores, canvas) == pytest.approx(cheapest(active, canvas), rel=1e-6)


def test_many_patterns_give_what_each_gives_alone():
    rng = np.random.default_rng(0)
    active = rng.random((40, 5, 6)) < 0.3
    active[7] = active[3]
    canvas = Canvas(80, 96, 16, 8, 200, 1e9)
    together = partitions(active, canvas)
    assert together == [partitions(a[None], canvas)[0] for a in active]


def test_windows_stay_below_the_largest():
    canvas = Canvas(256, 256, 32, 8, 0, 100 * 100)
    (cores,) = partitions(np.ones((1, 8, 8), dtype=bool), canvas)
    assert all(cost_of([(core, True)], canvas) <= 100 * 100 for core, _ in cores)
    assert len(cores) > 4


@pytest.mark.parametrize("tile", [None, 64, 0])
def test_every_active_pixel_is_in_an_active_tile_and_every_active_tile_has_one(tile):
    model = fake_model()
    attention = torch.zeros(1, 1, 192, 256)
    attention[..., 100:140, 30:90] = torch.rand(40, 60, generator=torch.Generator().manual_seed(0))
    plan = plan_of(attention, model, options(tile=tile, lower_bound=0.05))
    assert plan.layouts[0].idle or tile == 0
    for (_, s), layout in zip(itertools.pairwise(plan.timesteps), plan.layouts, strict=True):
        mask = time_mask(attention, plan.lower_bound, s + 1, plan.timesteps[0])
        covered = torch.zeros_like(mask)
        for one in layout.active:
            assert one.core.cut(mask).any() or tile is None
            one.core.cut(covered).fill_(True)
        for one in layout.idle:
            assert not one.core.cut(mask).any()
        assert bool((covered | ~mask).all())
    assert plan.planned_calls == sum(len(layout.active) for layout in plan.layouts)


def test_idle_areas_cost_less_and_a_plan_never_costs_more_than_one_tile():
    model = fake_model()
    attention = torch.zeros(1, 1, 512, 768)
    attention[..., 200:300, 100:200] = 1
    costs = Costs(call=1e-3, pixel=1e-6, encode=0.0, step=0.0)
    dense = plan_of(torch.ones_like(attention), model, options()).seconds(costs)
    masked = plan_of(attention, model, options()).seconds(costs)
    whole = plan_of(attention, model, options(tile=0)).seconds(costs)
    assert masked < 0.5 * dense
    assert dense <= 1.001 * whole


def test_a_dense_block_is_one_window_unless_the_picture_is_too_large(monkeypatch):
    attention = torch.ones(1, 1, 1024, 1280)
    quick = plan_of(attention, fake_model(), options())
    assert {len(layout.active) for layout in quick.layouts} == {1}
    lean = plan_of(attention, fake_model(), options(), lean=True)
    windows = [tile.window.pixels for layout in lean.layouts for tile in layout.active]
    assert max(windows) <= LARGEST_WINDOW < 1024 * 1280
    asked, model = [], fake_model()
    monkeypatch.setattr(
        "yoda_cli.upscaling.picture_plan.largest_window",
        lambda *args, lean: asked.append(lean) or largest_window(*args, lean=lean),
    )
    monkeypatch.setattr("yoda_cli.upscaling.picture_plan.LEAN_PIXELS", 4 * 160 * 4 * 160)
    for side in (160, 162):
        begin(photo(side, side), model, resolve(options(), model))
    assert asked == [False, True]


def test_a_forecast_counts_a_window_shape_once_and_a_pixels_noise_once():
    model = fake_model()
    attention = torch.zeros(1, 1, 512, 768)
    attention[..., 200:300, 100:200] = 1
    plan = plan_of(attention, model, options(tile=128))
    shapes = {(t.window.height, t.window.width) for layout in plan.layouts for t in layout.active}
    assert len(shapes) > 1
    known = Costs(call=1e-3, pixel=1e-6, encode=0.0, step=0.0, shape=5.0)
    twice = forecast_seconds([plan, plan], known)
    assert twice == pytest.approx(2 * plan.seconds(known) + 5 * len(shapes))
    noisy = replace(known, once=1e-3)
    assert forecast_seconds([plan], noisy) - forecast_seconds([plan], known) == pytest.approx(
        512 * 768 * 1e-3
    )


def test_a_busy_moment_is_no_cost_and_a_shapes_first_use_is_told_apart(monkeypatch):
    model = fake_model()
    clock = {"now": 0.0}
    seen, calls = set(), []

    def call(bench, side):
        calls.append(side)
        clock["now"] += 1e-8 * side**2 + 1e-3 + (0 if side in seen else 7e-3)
        clock["now"] += 1.0 if len(calls) in (1, 3, 9, 15) else 0.0  # a busy moment
        seen.add(side)

    monkeypatch.setattr(timing.Canvas, "call", call)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock["now"])
    found = timing.measure_fully(model)
    assert found.shape == pytest.approx(7e-3)
    assert found.pixel == pytest.approx(1e-8)
    assert found.call == pytest.approx(1e-3)


@pytest.mark.parametrize("changes", [{}, {"tile": 64}, {"exact": True}, {"block": 256}])
def test_calls_equal_the_plan_and_skipping_changes_no_byte(changes):
    lr = photo(80, 112)
    runs = {}
    for skip in (True, False):
        model = fake_model()
        result = enlarge(lr, model, options(attention="gaussian", skip=skip, **changes))
        assert result.calls == result.planned_calls == model.backbone.calls
        runs[skip] = result
    assert torch.equal(runs[True].image, runs[False].image)
    assert runs[True].calls < runs[True].dense_calls == runs[False].calls


@pytest.mark.parametrize("size", [(80, 112), (1, 700), (300, 2)])
def test_blocks_give_the_picture_of_one(size):
    lr = photo(*size)
    whole = enlarge(lr, fake_model(), options(attention="edge"))
    cut = enlarge(lr, fake_model(), options(attention="edge", block=256))
    assert cut.blocks > 1 == whole.blocks
    assert torch.allclose(cut.image, whole.image, atol=1e-6)


def test_blocks_cover_large_canvases_evenly_and_none_is_thinner_than_an_overlap():
    model = fake_model()
    for height, width in [(4096, 4096), (8, 80_000), (5424, 8160), (2056, 2056)]:
        blocks = make_blocks(height, width, model.backbone.geometry.align, None)
        assert sum(b.core.pixels for b in blocks) == height * width
        largest = LEAN_BLOCK if height * width > LEAN_PIXELS else WHOLE_PIXELS
        assert max(b.core.pixels for b in blocks) < 1.1 * largest
        assert min(min(b.core.height, b.core.width) for b in blocks) >= 8
        if len(blocks) > 1:
            assert min(max(b.core.height, b.core.width) for b in blocks) >= 128


def test_conditions_that_are_not_kept_give_the_same_picture(monkeypatch):
    lr = photo(80, 112)
    kept = enlarge(lr, fake_model(), options(block=256)).image
    monkeypatch.setattr("yoda_cli.upscaling.blocks.KEPT_BYTES", 0)
    assert torch.allclose(enlarge(lr, fake_model(), options(block=256)).image, kept)


def test_only_very_large_canvases_give_memory_back_after_every_block(monkeypatch):
    given = []
    monkeypatch.setattr(block_runs, "trim_heap", lambda: given.append(1))
    lr = photo(96, 128)
    result = enlarge(lr, fake_model(), options(block=256))
    assert not given
    monkeypatch.setattr(block_runs, "LEAN_PIXELS", lr.shape[-1] * lr.shape[-2] - 1)
    enlarge(lr, fake_model(), options(block=256))
    assert len(given) == result.blocks > 1


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("source", ["edge", "gaussian", "learned"])
def test_a_budget_is_met_by_the_forecast(budget, source, monkeypatch):
    known = Costs(call=1e-3, pixel=1e-6, encode=1e-7, step=1e-8)
    monkeypatch.setattr("yoda_cli.upscaling.picture_plan.costs_of", lambda model: known)
    model = fake_model()
    lr = photo(160, 160)
    asked = options(attention=source, lower_bound=0.1, budget=budget, steps=20)
    seen, _ = begin(lr, model, resolve(asked, model))
    plain = replace(asked, attention="uniform", budget=None)
    dense, _ = begin(lr, model, resolve(plain, model))
    share = seen.forecast_seconds / dense.forecast_seconds
    assert seen.spent.share == pytest.approx(share, rel=1e-6)
    assert share == pytest.approx(budget, abs=0.12)


def test_spending_less_raises_the_exponent_then_weakens_the_map_then_lowers_the_bound():
    attention = torch.linspace(0, 1, 1001).view(1, 1, 1, -1)

    def seconds_of(a, lower):
        return float((a + lower).clamp(max=1).mean())

    wanted = [0.9, 0.5, 0.3, 0.1]
    found = [spend(attention, b, 0.2, 0.001, seconds_of) for b in wanted]
    assert found[0].exponent < found[1].exponent < 4
    assert [f.weight for f in found[:2]] == [1, 1]
    assert found[2].weight < 1
    assert [f.lower_bound for f in found[:3]] == [0.2] * 3
    assert found[3].lower_bound < 0.2
    assert [f.share for f in found] == pytest.approx(wanted, abs=0.02)


def test_the_noise_is_drawn_once_for_a_deterministic_sampler():
    lr = photo(16, 16)
    states = {}
    for sampler in ("ddim", "ddpm"):
        seen = []
        observer = Observer(on_step=lambda record, seen=seen: seen.append(record), whole=True)
        asked = options(sampler=sampler, attention="gaussian", lower_bound=0.01)
        enlarge(lr, fake_model(), asked, observer)
        idle = ~seen[1].mask.expand_as(seen[0].z_s)
        schedule = fake_model().backbone.schedule
        noises = [r.z_s[idle] / schedule.sigma(r.s) for r in seen[:2]]  # z_lr is 0
        states[sampler] = torch.allclose(noises[0], noises[1], atol=1e-5)
    assert states == {"ddim": True, "ddpm": False}


def test_costs_are_measured_once_and_a_damaged_record_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path))
    model = fake_model()
    counted = []
    monkeypatch.setattr(
        costs, "measure", lambda *_: counted.append(1) or Costs(1e-3, 1e-7, 1e-7, 0)
    )
    for text in (None, None, "not json", '{"x": 1}', "[]"):
        costs.forget()
        if text is not None:
            (tmp_path / "costs-7.json").write_text(text)
        assert costs_of(model).overhead_pixels == 16384
    assert len(counted) == 4
    assert len(json.loads((tmp_path / "costs-7.json").read_text())) == 1
    costs.forget()


def test_forecasts_lean_on_what_runs_took_and_on_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(costs, "measure", lambda *_: Costs(1e-3, 1e-6, 1e-7, 1e-8))
    costs.forget()
    model, lr = fake_model(), torch.rand(1, 3, 40, 40)
    asked = options(attention="gaussian")

    def forecast():
        return plan_picture(lr, model, resolve(asked, model)).forecast_seconds

    before, expected = plan_picture(lr, model, resolve(asked, model)), forecast()
    costs.learn(model, 0.1, 100.0)  # too short to tell
    assert forecast() == expected
    for took in (1.9, 1.9, 30, 1.9, 0.1):  # one met a busy moment, one a short picture
        costs.learn(model, forecast() * 1000, expected * 1000 * took)
    assert forecast() == pytest.approx(1.9 * expected, rel=1e-3)
    costs.forget()  # another process
    after = plan_picture(lr, model, resolve(asked, model))
    assert after.forecast_seconds == pytest.approx(1.9 * expected, rel=1e-3)
    assert after.plans == before.plans
    costs.learn(model, 1.0, 1e6)  # the machine slept
    assert forecast() == pytest.approx(1.9 * expected, rel=1e-3)
    costs.forget()


@pytest.mark.parametrize(("took", "again"), [(1 / 2.7, True), (2.7, True), (1.5, False)])
def test_costs_of_a_busy_moment_are_measured_again(took, again, tmp_path, monkeypatch):
    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path))
    counted = []
    monkeypatch.setattr(
        costs, "measure", lambda *_: counted.append(1) or Costs(1e-3, 1e-6, 1e-7, 1e-8)
    )
    costs.forget()
    model = fake_model()
    for _ in range(costs.RUNS):
        assert len(counted) == 1
        costs.learn(model, 10 * costs_of(model).pace, 10 * took)
    assert costs_of(model).pace == pytest.approx(took)
    costs.forget()  # another process
    assert (costs_of(model).pace == 1) is again
    assert len(counted) == 1 + again
    costs.forget()


def test_a_cpu_is_measured_in_passing_and_its_plans_do_not_depend_on_the_moment(monkeypatch):
    model = fake_model()
    calls = model.backbone.calls
    plans = []
    for slow in (1, 40):
        clock = itertools.count()
        monkeypatch.setattr(timing.time, "perf_counter", lambda s=slow, c=clock: s * next(c))
        plans.append(timing.measure(model).overhead_pixels)
    assert len(set(plans)) == 1
    assert model.backbone.calls - calls <= 2 * 3


def test_runs_tell_the_pace_but_not_those_with_other_reasons_to_be_slow(monkeypatch):
    told = []
    monkeypatch.setattr(pixel, "learn", lambda model, forecast, seconds: told.append(seconds))
    lr, model = torch.rand(1, 3, 24, 24), fake_model()
    enlarge(lr, model, options())
    assert len(told) == 1
    assert told[0] > 0
    enlarge(lr, model, options(tile=64))
    enlarge(lr, model, options(), Observer(whole=True))
    assert len(told) == 1


@pytest.mark.parametrize(
    ("call", "expected"),
    [(0, 1024), (1e-3, 1024), (4e-3, 4096), (2e-2, 16384), (0.1, 65536), (1, 262144)],
)
def test_the_overhead_is_a_power_of_four(call, expected):
    assert Costs(call, 1e-6, 0, 0).overhead_pixels == expected
    assert Costs(0, 1e-6, 0, 0, shape=call).overhead_pixels == expected  # most shapes are new


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 0.0}, "budget 0"),
        ({"budget": 2.0}, "budget 2"),
        ({"budget": float("nan")}, "budget nan"),
        ({"tile_overlap": -1}, "tile overlap -1"),
        ({"tile": 128, "tile_overlap": 128}, "smaller than the tile"),
        ({"block": 100}, "block 100"),
        ({"block": -5}, "block -5"),
        ({"batch": 0}, "batch 0"),
        ({"exact": True, "precision": "bf16"}, "fp32"),
    ],
)
def test_work_that_cannot_be_done_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        check_options(options(**changes))


def test_exact_runs_one_window_shape_on_one_thread():
    model = fake_model()
    lr = photo(150, 200)
    shapes, threads = set(), set()
    predict = model.backbone.predict

    def watched(z_t, t, condition, mask):
        shapes.add(tuple(z_t.shape))
        threads.add(torch.get_num_threads())
        return predict(z_t, t, condition, mask)

    model.backbone.predict = watched
    torch.set_num_threads(2)
    try:
        enlarge(lr, model, options(exact=True))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert len(shapes) == 1
    assert threads == {1}


def test_a_plan_holds_the_map_it_was_given():
    model = fake_model()
    lr = photo(20, 24)
    painted = torch.rand(1, 1, 20, 24)
    with torch.inference_mode():
        seen, _ = begin(lr, model, resolve(options(), model), painted)
    assert torch.equal(seen.attention, painted)
    assert seen.on_grid.shape == (1, 1, 80, 96)
    assert seen.mask(100).sum() < seen.mask(1).sum() == 80 * 96
