"""The recipe of progressive injection: φ alone learns, on long chains, told what steps gained."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from fakes import photo, save_photo
from tiny_recipe import CPU, NET, OPTIONS, RECIPE

from yoda_cli.cli.train import start_of
from yoda_cli.config import TrainOptions
from yoda_cli.diffusion.adaptive import Gains
from yoda_cli.errors import UsageError
from yoda_cli.evaluation.metrics.gain import true_sums
from yoda_cli.models import BACKBONES
from yoda_cli.models.base import Condition
from yoda_cli.models.checkpoint import load_checkpoint, save_checkpoint
from yoda_cli.training.loop import train
from yoda_cli.training.objective import Task
from yoda_cli.training.recipes import load_recipe
from yoda_cli.training.true_gains import TrueGains

LEARNS = TrainOptions(
    **{
        **{name: getattr(OPTIONS, name) for name in ("patch", "batch", "warmup", "attention")},
        "states": "sampled", "frozen": ("encoder", "denoise_fn"), "chains": (24,),
        "adaptive": True, "scored": 2, "rate": 0.05, "validation_pictures": 1,
        "validation_steps": 4, "steps": 3,
    }
)  # fmt: skip
TOLD = replace(RECIPE, net={**NET, "injection": True}, train=LEARNS)


def test_only_phi_learns_and_what_it_learnt_is_kept(tmp_path):
    for i in range(3):
        save_photo(tmp_path / f"{i}.png", 70 + 10 * i, 90, seed=i)
    torch.manual_seed(0)
    net = BACKBONES["srdiff"](NET)
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, backbone="srdiff", net=NET, state=net.state_dict(), card={})
    best = train(TOLD, tmp_path, tmp_path / "run", device=CPU, card={}, init=start)
    before, after = (load_checkpoint(path)[0].state_dict() for path in (start, best))
    assert {key.split(".")[0] for key in after.keys() - before.keys()} == {"injection"}
    for key, value in before.items():
        assert torch.equal(after[key], value), key
    learnt = ("out.weight", "out.bias", "gains.weight", "features.weight")
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["net"]
    assert state["injection.out.weight"].abs().max() > 1e-3  # it began at zero
    fresh = BACKBONES["srdiff"](TOLD.net).state_dict()
    assert all(state[f"injection.{key}"].shape == fresh[f"injection.{key}"].shape for key in learnt)


def test_true_gains_are_those_between_two_estimates_of_the_second_half():
    hr = torch.cat([photo(48, 64, seed=1), photo(48, 64, seed=2)])
    noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    estimates = [hr + level * noise for level in (0.2, 0.1, 0.05, 0.05)]
    gains = TrueGains(hr, lambda z: z, num_steps=100)
    seen = []
    for z_0, s in zip(estimates, (60, 50, 20, 0), strict=True):  # the times they lead to
        gains.see(z_0, s)
        seen.append(gains.now)
    assert seen[0] is None, "the first half"
    assert seen[1] is None, "the first estimate that is looked at"
    assert seen[3] is None, "no step follows"
    for i in range(2):
        sums = [true_sums(z[i : i + 1].clamp(0, 1), hr[i : i + 1]) for z in estimates[1:3]]
        expected = Gains.between(*sums)
        assert seen[2][i].tolist() == pytest.approx([expected.fidelity, expected.realism])
    assert (seen[2] > 0.01).all()


def task(seed=0, **changes):
    net = SimpleNamespace(schedule=SimpleNamespace(num_steps=1000))
    condition = Condition(torch.zeros(1, 3, 16, 16))
    hr = z_0 = torch.zeros(1, 3, 16, 16)
    return Task(
        net, replace(LEARNS, chains=(50,), **changes), condition, hr, z_0, torch.zeros(1, 1, 4, 4),
        0.2, torch.Generator().manual_seed(seed), None,
    )  # fmt: skip


def test_chains_leap_as_adaptive_runs_do():
    uniform = task(adaptive=False).chain()
    assert len(uniform) == 51
    chains = [task(seed).chain() for seed in range(20)]
    for chain in chains:
        assert (chain[0], chain[-1]) == (1000, 0)
        assert set(chain) <= set(uniform)
        assert chain == sorted(chain, reverse=True)
        leaps = [uniform.index(s) - uniform.index(t) for t, s in itertools.pairwise(chain)]
        assert max(leaps) <= 4
    assert len({tuple(chain) for chain in chains}) > 10
    lengths = [len(chain) - 1 for chain in chains]
    assert 12 <= min(lengths) < max(lengths) <= 35


def test_the_estimates_to_learn_from_are_read_somewhere():
    """A = 0 and l = 0.2: only transitions to times below 200 have a mask."""
    attention = torch.zeros(1, 1, 16, 16)
    for seed in range(10):
        one = task(seed)
        chain = one.chain()
        picked = one.picked(chain, attention)
        assert len(picked) == 2
        assert all(chain[i + 1] + 1 <= 200 for i in picked)
    everything = task(scored=0)
    chain = everything.chain()
    assert everything.picked(chain, attention) == set(range(len(chain) - 1))


def test_the_recipe_is_of_general_but_for_phi_and_starts_from_it():
    recipe, general = load_recipe("general-injection"), load_recipe("general")
    assert recipe.net == {**general.net, "injection": True}
    assert set(recipe.train.frozen) == {"encoder", "denoise_fn"}
    assert max(recipe.train.chains) >= 50
    start = start_of(None, recipe)
    assert start is not None
    assert start.stem == "general"


def test_a_network_like_none_is_refused(tmp_path):
    own = tmp_path / "recipes.toml"
    own.write_text('[mine]\nbackbone = "srdiff"\n[mine.net]\nlike = "yours"\n')
    with pytest.raises(UsageError, match="lacks 'yours'"):
        load_recipe("mine", own)


@pytest.mark.parametrize("more", [{"scored": 2}, {"adaptive": True}])
def test_what_needs_states_of_its_own_is_refused_without(more):
    with pytest.raises(ValueError, match="adaptive and texture_weight need states"):
        TrainOptions(states="forward", **more)
