"""Training: what is drawn, what is minimised, and that a run can be stopped anywhere."""

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from cases import one_by_default
from fakes import save_photo
from PIL import Image
from tiny_recipe import CPU, NET, OPTIONS, RECIPE
from torch import nn

from yoda_cli.config import TrainOptions
from yoda_cli.diffusion.yoda import time_mask
from yoda_cli.errors import InputError, NotFoundError, UsageError
from yoda_cli.images.resize import imresize
from yoda_cli.models import BACKBONES
from yoda_cli.models.checkpoint import load_checkpoint, read_header, save_checkpoint
from yoda_cli.training.data import PairStore, list_pictures, split_validation
from yoda_cli.training.loop import (
    make_run,
    rate_at,
    train,
    train_step,
)
from yoda_cli.training.objective import draw_attention, draw_transitions
from yoda_cli.training.recipes import load_recipe
from yoda_cli.weights.entries import PACKAGE

CARD = {"licence": "Apache-2.0"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        save_photo(folder / f"{i}.png", 70 + 10 * i, 90, seed=i)
    return folder


def run(data, folder, steps, **changes):
    recipe = replace(RECIPE, train=replace(OPTIONS, steps=steps, **changes))
    return train(recipe, data, folder, device=CPU, card=CARD)


def test_a_run_writes_a_checkpoint_that_says_everything(data, tmp_path):
    best = run(data, tmp_path / "run", 3)
    header = read_header(best)
    assert header.backbone == "srdiff"
    assert header.card["licence"] == "Apache-2.0"
    assert header.card["defaults"]["steps"] == 4
    assert header.card["training"]["steps"] == 3
    assert header.card["training"]["samples"] == 6
    assert header.card["training"]["validation"]["base_psnr"] > 10
    assert list((tmp_path / "run" / "validation").glob("*.png"))
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 3


def test_a_run_stopped_halfway_goes_on_to_the_same_weights(data, tmp_path, monkeypatch):
    run(data, tmp_path / "whole", 6, save_minutes=0)

    import yoda_cli.training.loop as module

    steps = 0

    def stopping(*arguments):
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return train_step(*arguments)

    monkeypatch.setattr(module, "train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "parts", 6, save_minutes=0)
    monkeypatch.undo()
    run(data, tmp_path / "parts", 6, save_minutes=0)
    whole, parts = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts")
    )
    assert whole["counters"][0] == parts["counters"][0] == 6
    for kind in ("net", "ema"):
        for key, value in whole[kind].items():
            assert torch.equal(value, parts[kind][key]), key


def test_a_run_with_muon_goes_on_where_it_stopped(data, tmp_path):
    """Both optimisers' averages are in the state: the next step is that of a run without a stop."""
    changes = {"muon": ("encoder.trunk",), "save_minutes": 0, "warmup": 0, "final_rate": 1.0}
    run(data, tmp_path / "whole", 4, **changes)
    run(data, tmp_path / "parts", 2, **changes)
    run(data, tmp_path / "parts", 4, **changes)
    whole, parts = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts")
    )
    assert whole["optimizers"]["muon"]["state"]
    for key, value in whole["net"].items():
        assert torch.equal(value, parts["net"][key]), key


def test_without_states_only_the_encoder_learns(data, tmp_path):
    """The best checkpoint is then the one with the best base."""
    run(data, tmp_path / "run", 2, states="none", validate_minutes=0)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    options = replace(OPTIONS, states="none", steps=2)
    start = make_run(replace(RECIPE, train=options), CPU, None).net.state_dict()
    changed = {key for key, value in state["net"].items() if not torch.equal(value, start[key])}
    assert changed
    assert all(key.startswith("encoder.") for key in changed)
    assert state["counters"][3] > 10  # dB


def test_without_states_a_network_needs_an_encoder_of_its_own(data, tmp_path):
    recipe = load_recipe("sr3-16-128")
    net = {**recipe.net, "scale": 4, "inner_channel": 8, "channel_mults": [1], "norm_groups": 4}
    options = replace(OPTIONS, states="none", steps=1)
    with pytest.raises(UsageError, match="trains an encoder"):
        train(replace(recipe, net=net, train=options), data, tmp_path, device=CPU, card=CARD)


def two_steps(name, folder, patch):
    """A recipe's run after two steps, what was in its network before and which of it changed, and
    the last terms of the loss."""
    recipe = load_recipe(name)
    save_photo(folder / "a.png", patch + 72, patch + 72)
    options = replace(recipe.train, patch=patch, batch=1)
    state = make_run(replace(recipe, train=options), CPU, None)
    store = PairStore.load(list_pictures(folder), 4, [], folder, CPU, patch // 4)
    before = {k: v.clone() for k, v in state.net.state_dict().items()}
    for _ in range(2):
        terms = train_step(state, store, options, 0.0, contextlib.nullcontext)
    changed = {k for k, v in state.net.state_dict().items() if not torch.equal(v, before[k])}
    return state, before, changed, terms


def test_the_recipe_of_the_base_leaves_the_denoiser_alone(tmp_path):
    """Muon steps every kernel of the trunk; nothing of the denoiser moves."""
    state, before, changed, _ = two_steps("general-base", tmp_path, patch=32)
    trunk = {k for k, v in before.items() if "trunk" in k and v.ndim == 4}
    assert len(state.optimizers.matrices) == len(trunk) == 25
    assert trunk <= changed
    assert all(k.startswith("encoder.") for k in changed)


def test_a_run_goes_on_from_a_checkpoint(data, tmp_path):
    best = run(data, tmp_path / "first", 2)
    recipe = replace(RECIPE, train=replace(OPTIONS, steps=1))
    train(recipe, data, tmp_path / "second", device=CPU, card=CARD, init=best)
    started = make_run(recipe, CPU, best).net.state_dict()
    fresh = make_run(recipe, CPU, None).net.state_dict()
    assert any(not torch.equal(started[key], fresh[key]) for key in fresh)


def test_another_network_takes_the_tensors_that_fit_and_says_how_many(data, tmp_path, caplog):
    best = run(data, tmp_path / "first", 2)
    given = cast(nn.Module, load_checkpoint(best)[0]).state_dict()
    other = replace(RECIPE, net={**NET, "dim": 16})
    started = make_run(other, CPU, best).net.state_dict()
    assert "tensors start from best.safetensors" in caplog.text
    for key in (key for key in started if key.startswith("encoder.")):
        assert torch.equal(started[key], given[key]), key
    stranger = tmp_path / "stranger.safetensors"
    shape = {"inner_channel": 8, "channel_mults": [1], "norm_groups": 4, "attn_levels": []}
    net = cast(nn.Module, BACKBONES["sr3"](shape))
    save_checkpoint(stranger, backbone="sr3", net=shape, state=net.state_dict(), card={})
    with pytest.raises(UsageError, match="no tensor that fits"):
        make_run(other, CPU, stranger)


def test_training_lowers_the_loss(data):
    import contextlib

    store = PairStore.load(list_pictures(data), 4, ["edge"], data / "maps", CPU, 8)
    options = replace(OPTIONS, rate=5e-3, batch=4, degrade=0.0, attention={"uniform": 1.0})
    state = make_run(replace(RECIPE, train=options), CPU, None)
    losses = [
        sum(train_step(state, store, options, 0.0, contextlib.nullcontext).values())
        for _ in range(40)
    ]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_run_without_an_end_is_refused(data, tmp_path):
    with pytest.raises(UsageError, match="never ends"):
        run(data, tmp_path, 0)


def test_transitions_are_drawn_from_chains_and_never_with_an_empty_mask():
    generator = torch.Generator().manual_seed(0)
    peak = 100 * (torch.tensor([0.0, 0.3, 1.0]) + 0.1)
    seen = set()
    for _ in range(200):
        t, s = draw_transitions(OPTIONS, 100, peak, generator)
        for p, a, b in zip(peak.tolist(), t.tolist(), s.tolist(), strict=True):
            assert 100 >= a > b >= 0
            assert bool(time_mask(torch.tensor(p / 100 - 0.1), 0.1, b + 1, 100))
            assert a - b in (1, 25)
            seen.add((a, b))
    assert {(100, 75), (25, 0), (1, 0)} <= seen


def test_each_samples_map_comes_from_one_of_the_sources():
    generator = torch.Generator().manual_seed(0)
    from yoda_cli.training.data import Batch

    edge = torch.full((64, 1, 2, 2), 0.25)
    batch = Batch(
        torch.zeros(64, 3, 8, 8), torch.zeros(64, 3, 2, 2), {"edge": edge}, torch.zeros(64)
    )
    maps = draw_attention(OPTIONS, batch, torch.full((64, 1, 2, 2), 0.75), generator)
    means = maps.mean((1, 2, 3))
    assert {0.25, 0.75, 1.0} < set(means.tolist())
    without = draw_attention(OPTIONS, batch, None, generator)
    assert 0.75 not in without.mean((1, 2, 3)).tolist()


def test_crops_pair_up_and_maps_are_cached(data, tmp_path):
    cache = tmp_path / "maps"
    store = PairStore.load(list_pictures(data), 4, ["edge"], cache, CPU, 8)
    files = sorted(cache.rglob("*.png"))
    assert len(files) == 3
    stamps = [p.stat().st_mtime_ns for p in files]
    PairStore.load(list_pictures(data), 4, ["edge"], cache, CPU, 8)
    assert [p.stat().st_mtime_ns for p in files] == stamps
    batch = store.batch(16, 8, torch.Generator().manual_seed(1))
    assert batch.hr.shape == (16, 3, 32, 32)
    assert batch.maps["edge"].shape == (16, 1, 8, 8)
    # The LR crop is the reduced HR crop, away from the crop's own border.
    reduced = imresize(batch.hr, scale=1 / 4)
    assert (reduced - batch.lr)[..., 2:-2, 2:-2].abs().max() < 1.5 / 255
    assert (batch.strength == 0).all()


def test_the_same_generator_draws_the_same_crops(data):
    store = PairStore.load(list_pictures(data), 4, [], data / "maps", CPU, 8)
    a, b = (store.batch(4, 8, torch.Generator().manual_seed(5), 0.7) for _ in range(2))
    assert torch.equal(a.hr, b.hr)
    assert torch.equal(a.lr, b.lr)
    assert (a.strength > 0).any()


def test_every_twentieth_picture_is_held_out():
    names = [Path(f"{i:03d}.png") for i in range(45)]
    training, held_out = split_validation(names)
    assert [p.name for p in held_out] == ["000.png", "020.png", "040.png"]
    assert not set(training) & set(held_out)
    assert len(training) == 42


def test_folders_without_usable_pictures_are_refused(tmp_path):
    with pytest.raises(NotFoundError, match="no such folder"):
        list_pictures(tmp_path / "nosuch")
    with pytest.raises(NotFoundError, match="no pictures"):
        list_pictures(tmp_path)
    save_photo(tmp_path / "small.png", 8, 8)
    with pytest.raises(InputError, match="no picture is large enough"):
        PairStore.load(list_pictures(tmp_path), 4, [], tmp_path, CPU, 8)


def test_crops_are_picked_by_what_bicubic_misses(tmp_path):
    """Half of the picture is flat: of four candidates a busy one is taken nearly always."""
    save_photo(tmp_path / "a.png", 128, 128)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.array(picture)
    pixels[:, :64] = 90
    Image.fromarray(pixels).save(tmp_path / "a.png")
    store = PairStore.load(list_pictures(tmp_path), 4, [], tmp_path, CPU, 8)

    def flat(candidates):
        generator = torch.Generator().manual_seed(0)
        hr = store.batch(200, 8, generator, candidates=candidates).hr
        return float((hr.amax((1, 2, 3)) == hr.amin((1, 2, 3))).float().mean())

    assert flat(1) > 0.3
    assert 0 < flat(4) < 0.6 * flat(1)


def test_the_rate_warms_up_and_decays():
    options = TrainOptions(warmup=10, final_rate=0.01)
    assert rate_at(0.0, 0, options) == pytest.approx(0.1)
    assert rate_at(0.0, 50, options) == pytest.approx(1.0)
    assert rate_at(0.5, 50, options) == pytest.approx(0.505)
    assert rate_at(1.0, 50, options) == pytest.approx(0.01)


def test_unknown_recipes_and_keys_are_refused(tmp_path):
    with pytest.raises(
        UsageError, match="unknown recipe 'nosuch'; there are face, face-stage2, face-x8, general"
    ):
        load_recipe("nosuch")
    path = tmp_path / "mine.toml"
    path.write_text('[a]\nbackbone = "srdiff"\n[a.net]\n[a.train]\nbacth = 3\n')
    with pytest.raises(UsageError, match="bacth"):
        load_recipe("a", path)


RECIPES = ["general", "general-stage2", "face", "face-stage2", "face-x8"]
PUBLISHED = ["srdiff-celeba", "srdiff-df2k", "sr3-16-128", "sr3-64-256", "sr3-64-512"]


@pytest.mark.parametrize("name", [*RECIPES, *one_by_default(PUBLISHED)])
def test_every_recipe_trains(name, tmp_path):
    """At its real size; crops and batch are small, and steps few, to stay quick."""
    recipe = load_recipe(name)
    scale = recipe.net["scale"]
    save_photo(tmp_path / "a.png", 80, 80)
    options = replace(recipe.train, patch=32, batch=1)
    recipe = replace(recipe, train=options)
    state = make_run(recipe, CPU, None)
    store = PairStore.load(
        list_pictures(tmp_path), scale, ["edge", "sift", "gaussian"], tmp_path, CPU, 32 // scale
    )
    own = {k: v for k, v in state.net.state_dict().items() if not k.startswith("restorer.")}
    before = {k: v.clone() for k, v in own.items()}
    for _ in range(2):
        terms = train_step(state, store, options, 0.0, contextlib.nullcontext)
        assert all(torch.tensor(value).isfinite() for value in terms.values())
    changed = [k for k, v in before.items() if not torch.equal(v, state.net.state_dict()[k])]
    assert len(changed) > 0.5 * len(before)


PLAIN = """
import importlib.abc, sys
blocked = {"timm", "torchvision", "platformdirs", "requests", "filelock", "skimage", "scipy"}
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while frame and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        asker = (frame.f_globals.get("__name__") or "").split(".")[0] if frame else ""
        if name.split(".")[0] in blocked and asker == "yoda_cli":
            raise ImportError(f"{name} is not on a plain machine")
sys.meta_path.insert(0, Wall())
from yoda_cli.cli import run
sys.exit(run(sys.argv[1:], debug=True))
"""


@pytest.mark.slow
def test_training_runs_on_a_machine_with_few_libraries(data, tmp_path):
    recipe = write_recipe(tmp_path / "mine.toml")
    arguments = ["train", "--data", data, "--out", tmp_path / "run", "--recipe", "mine"]
    arguments += ["--recipes", recipe, "--steps", "1"]
    command = [sys.executable, "-c", PLAIN, *map(str, arguments)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "best.safetensors").is_file()


def write_recipe(path):
    lines = ['[mine]\nbackbone = "srdiff"\n[mine.net]']
    lines += [f"{key} = {json.dumps(value)}" for key, value in NET.items()]
    lines += ["[mine.train]", "patch = 32", "batch = 2", "validation_steps = 1"]
    path.write_text("\n".join(lines))
    return path


def test_the_command_line_trains(yoda, data, tmp_path):
    recipe = write_recipe(tmp_path / "mine.toml")
    out = tmp_path / "run"
    arguments = ["--data", data, "--out", out, "--recipe", "mine", "--recipes", recipe]
    done = yoda("train", *arguments, "--steps", "2", "--device", "cpu")
    assert done.code == 0, done.err
    assert done.out.strip() == str(out / "best.safetensors")
    assert "validation" in done.err
    done = yoda("train", *arguments, "--recipe", "nosuch", "--steps", "1")
    assert done.code == 2


def write_stages(path, after="last"):
    """``first``, then ``last``: one and two steps."""
    mine = write_recipe(path).read_text()
    first = mine.replace("mine", "first").replace("[first]", f'[first]\nthen = "{after}"')
    path.write_text(f"{first}\nsteps = 1\n{mine.replace('mine', 'last')}\nsteps = 2\n")
    return path


def test_a_recipe_and_what_follows_it_are_one_command(yoda, data, tmp_path):
    recipes = write_stages(tmp_path / "two.toml")
    arguments = ["--data", data, "--recipe", "first", "--recipes", recipes, "--device", "cpu"]
    done = yoda("train", *arguments, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert done.out.strip() == str(tmp_path / "run" / "last" / "best.safetensors")
    card = read_header(tmp_path / "run" / "last" / "best.safetensors").card
    assert card["training"]["steps"] == 2
    assert card["before"]["training"]["recipe"] == "first"
    assert card["before"]["training"]["steps"] == 1
    started, _ = load_checkpoint(tmp_path / "run" / "first" / "best.safetensors")
    ended, _ = load_checkpoint(tmp_path / "run" / "last" / "best.safetensors")
    step = [(a - b).abs().max() for a, b in zip(started.parameters(), ended.parameters())]  # noqa: B905
    assert 0 < max(step) < 0.01  # it went on from there; a start of its own differs by far more
    again = yoda("train", *arguments, "--out", tmp_path / "run")
    assert again.code == 0
    assert "step" not in again.err  # both are finished
    alone = yoda("train", *arguments, "--steps", "1", "--out", tmp_path / "alone")
    assert alone.out.strip() == str(tmp_path / "alone" / "best.safetensors")


def test_stages_that_never_end_are_refused(yoda, data, tmp_path):
    arguments = ["--data", data, "--recipe", "first", "--out", tmp_path / "run"]
    circle = write_stages(tmp_path / "circle.toml", after="first")
    assert "follows itself" in yoda("train", *arguments, "--recipes", circle).err
    missing = write_stages(tmp_path / "missing.toml", after="nosuch")
    done = yoda("train", *arguments, "--recipes", missing)
    assert done.code == 2
    assert "nosuch" in done.err
    endless = write_stages(tmp_path / "endless.toml")
    endless.write_text(endless.read_text().removesuffix("steps = 2\n"))
    done = yoda("train", *arguments, "--recipes", endless)
    assert done.code == 2
    assert "recipe last never ends" in done.err
    assert not (tmp_path / "run").exists()  # before the first began


def test_the_restorer_is_the_packaged_one_and_stays_so(tmp_path):
    _, before, changed, _ = two_steps("general", tmp_path, patch=32)
    packaged = cast(nn.Module, load_checkpoint(PACKAGE / "checkpoints/general.safetensors")[0])
    part = {k: v for k, v in packaged.state_dict().items() if k.startswith("restorer.")}
    assert len(part) > 100
    assert all(torch.equal(before[k], v) for k, v in part.items())
    assert changed
    assert not changed & set(part)


def test_another_restorer_is_refused():
    other = replace(RECIPE, net={**NET, "restorer_blocks": 1})
    with pytest.raises(UsageError, match="the packaged restorer has 12"):
        make_run(other, CPU, None)
