"""Regions that decide on their way: bytes, calls, masks, what is told, what is refused."""

from dataclasses import replace

import pytest
import torch
from fakes import always, enlarge, fake_model, photo

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.adaptive import TAU, Gains
from yoda_cli.errors import UsageError
from yoda_cli.evaluation.adaptive import lines_between
from yoda_cli.evaluation.metrics import seam
from yoda_cli.upscaling.checks import check_options
from yoda_cli.upscaling.pipeline import plan_picture, upscale_tensor
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer

LR = photo(96, 150)  # 384×600 output pixels: six regions of 256


def options(**changes):
    return UpscaleOptions(
        **{"steps": 20, "lower_bound": 0.2, "adaptive": True, "block": 256, **changes}
    )


def by_place(view):
    """Regions on the left gain at every step, those on the right nothing."""
    return always(Gains(0.0, 1.0 if view.window.left == 0 else 0.0))(view)


GROWING, SATURATED = always(Gains(0.0, 1.0)), always(Gains(0.0, -1.0))


def judged(judge_of):
    return replace(fake_model(), judge_of=judge_of)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++", "dpm++3m-sde"])
def test_regions_that_always_take_single_steps_give_the_bytes_of_the_uniform_chain(sampler):
    asked = options(sampler=sampler, leaps=(1.0,))
    result = enlarge(LR, judged(GROWING), asked)
    uniform = enlarge(LR, fake_model(), replace(asked, adaptive=False, leaps=None))
    assert torch.equal(result.image, uniform.image)
    assert result.calls == uniform.calls


@pytest.mark.parametrize("judge_of", [None, SATURATED, by_place])
@pytest.mark.parametrize("attention", ["learned", "uniform", "gaussian"])
def test_skipping_idle_tiles_changes_no_byte_and_no_decision(judge_of, attention):
    runs = [
        enlarge(LR, judged(judge_of), options(attention=attention, tile=64, skip=skip))
        for skip in (True, False)
    ]
    assert torch.equal(runs[0].image, runs[1].image)
    assert [r.times for r in runs[0].regions] == [r.times for r in runs[1].regions]
    assert runs[0].calls <= runs[1].calls


def test_regions_decide_for_themselves_whoever_stands_beside_them():
    """Together, as a GPU takes them, or one by one: the same bytes; equal times share calls."""
    images, calls = [], []
    for group in (1, 8):
        model = judged(by_place)
        settings = replace(resolve(options(tile=256, sampler="ddpm"), model), group=group)
        result = upscale_tensor(LR, model, settings)
        images.append(result.image)
        calls.append(model.backbone.calls)
        steps = [len(region.times) for region in result.regions]
        assert min(steps[::3]) > max(steps[1::3] + steps[2::3])  # the left ones go on
    assert torch.equal(*images)
    assert calls[1] < 0.7 * calls[0]


def test_nobody_looks_at_a_region_while_nothing_depends_on_it():
    """The rule heeds the second half of the chain: there, and once before, it is looked."""
    looked = []

    def judge_of(view):
        def judge(z_0, t):
            looked.append(t)
            return Gains(0.0, 0.0) if len(looked) > 1 else None

        return judge

    result = enlarge(LR, judged(judge_of), options(block=0))
    (region,) = result.regions
    late = [t for t in region.times if 2 * t <= 100]
    assert list(region.judged) == late[:-1], "the last estimate is the result"
    assert looked == [min(t for t in region.times if 2 * t > 100), *late[:-1]]
    assert len(looked) < 0.7 * len(region.times)


def test_regions_of_different_length_leave_no_seam():
    """The gradient across the lines between them is that of one uniform chain within 0.02."""
    asked = options(attention="uniform")
    result = enlarge(LR, judged(by_place), asked)
    steps = [len(region.times) for region in result.regions]
    assert max(steps) > 1.3 * min(steps)
    lines = lines_between(result.regions, 1)
    assert [len(along) for along in lines] == [1, 2]
    uniform = enlarge(LR, fake_model(), replace(asked, adaptive=False, block=0))
    expected = seam(uniform.image, *lines)
    assert abs(seam(result.image, *lines) - expected) <= 0.02
    brighter = result.image.clone()
    brighter[..., lines[1][0] :] += 0.04
    assert abs(seam(brighter, *lines) - expected) > 0.02, "a step of 4 % is seen"


def test_a_region_that_saturates_holds_the_estimate_it_had_before_it_fell():
    model, seen = fake_model(), []

    def judge_of(view):
        def judge(z_0, t):
            seen.append((t, z_0.clone()))
            return None if len(seen) == 1 else Gains(0.0, -1.0 if t <= 50 else 0.0)

        return judge

    result = enlarge(LR, replace(model, judge_of=judge_of),
                     options(attention="uniform", block=0, fidelity=0.0))  # fmt: skip
    (region,) = result.regions
    assert region.left
    assert region.trends[-1] == "saturated"
    assert region.times[-1] > 5
    best = seen[-3][1]
    expected = model.backbone.decode(best, model.backbone.encode(LR)).clamp(0, 1)
    assert torch.equal(result.image, expected[..., :384, :600])


def test_a_region_whose_mask_never_covered_it_makes_a_last_step_to_the_end():
    result = enlarge(LR, judged(SATURATED), options(lower_bound=0.01, attention="gaussian"))
    assert any(region.left for region in result.regions)
    uniform = enlarge(LR, fake_model(), UpscaleOptions(steps=20, lower_bound=0.01))
    assert torch.isfinite(result.image).all()
    assert (result.image - uniform.image).abs().max() < 0.5


@pytest.mark.parametrize("judge_of", [None, GROWING, SATURATED, by_place])
def test_the_calls_made_lie_in_the_range_that_was_told(judge_of):
    planned, model = [], judged(judge_of)
    observer = Observer(on_plan=lambda calls, seconds: planned.append(calls))
    least, most = plan_picture(LR, model, resolve(options(), model)).calls_range
    result = enlarge(LR, model, options(), observer)
    assert least <= result.calls <= most
    assert least < planned[0] < most
    assert planned == [result.planned_calls]
    assert result.network_pixels == sum(region.pixels for region in result.regions)


def test_a_budget_bends_what_is_expected():
    model = fake_model()
    plans = [
        plan_picture(LR, model, resolve(options(budget=share, tile=64), model))
        for share in (None, 0.4)
    ]
    assert plans[1].planned_calls < plans[0].planned_calls
    assert plans[1].spent is not None


def test_a_region_is_512_pixels_or_a_tile_whatever_is_larger():
    model = fake_model()
    for tile, side in ((None, 512), (0, 512), (128, 512), (640, 640)):
        assert resolve(options(block=None, tile=tile), model).tiles.block == side


def test_leaps_in_thousandths_become_whole_steps_of_the_chain():
    model = fake_model()

    def leaps(steps, asked):
        settings = resolve(options(steps=steps, leaps=asked), model)
        return settings.sampling.adaptive.rule.leaps

    assert leaps(20, None) == (1, 2, 3, 4)
    assert leaps(20, (5.0, 10.0, 15.0, 20.0)) == (1,)
    assert leaps(20, (50.0, 100.0, 250.0)) == (1, 2, 5)
    assert leaps(100, (10.0, 20.0, 40.0)) == (1, 2, 4)


def test_what_decides_is_part_of_the_command_that_repeats_a_result(tmp_path):
    settings = resolve(options(tau=0.01, leaps=(50.0, 100.0)), fake_model())
    line = settings.command(tmp_path / "a.png", tmp_path / "b.png")
    assert "--tau 0.01" in line
    assert "--leaps 50,100" in line
    assert "--block 256" in line
    assert line.endswith("--adaptive")
    assert resolve(options(), fake_model()).sampling.adaptive.rule.tau == TAU


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 1}, "2 or more"),
        ({"faithful": True, "sampler": "ddpm"}, "fixed beforehand"),
        ({"tau": 0.0}, "tau 0 "),
        ({"tau": -1.0}, "tau -1 "),
        ({"tau": 1.0}, "tau 1 "),
        ({"leaps": ()}, "rising"),
        ({"leaps": (10.0, 5.0)}, "rising"),
        ({"leaps": (5.0, float("nan"))}, "rising"),
        ({"leaps": (5.0, 2000.0)}, "rising"),
        ({"block": 256, "tile": 512}, "smaller than a tile"),
        ({"adaptive": False, "tau": 0.01}, "add --adaptive"),
        ({"adaptive": False, "regressor": "a"}, "add --adaptive"),
    ],
)
def test_what_leaves_nothing_to_decide_is_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        check_options(options(**changes))


def test_a_model_whose_own_chain_has_one_step_is_refused():
    with pytest.raises(UsageError, match="would take 1"):
        resolve(options(steps=None), fake_model(steps=1))
