"""The Ray engine on a cluster of two CPUs that the test starts: the bytes of the local engine."""

import os
import time
from collections import deque
from types import SimpleNamespace

import pytest
from fakes import save_photo

from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.models.loading import find_model
from yoda_cli.upscaling.batch.inputs import Found
from yoda_cli.upscaling.batch.outputs import Naming
from yoda_cli.upscaling.batch.plan import Events, plan_batch

pytestmark = [
    pytest.mark.filterwarnings("default"),  # Ray's own
    pytest.mark.xdist_group("ray"),
]
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)
    yield
    ray.shutdown()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        save_photo(tmp_path / "in" / f"{i}.png", 10 + i, 12, seed=i)
    save_photo(tmp_path / "in" / "large.png", 150, 170)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    return tmp_path / "in"


def results(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.png"))}


def test_the_bytes_are_those_of_the_local_engine_blocks_of_one_picture_too(
    yoda, cluster, folder, tmp_path, tiny_checkpoint
):
    common = ["--model", tiny_checkpoint, "--exact", "--block", "256"]
    local = yoda("upscale", folder, "-o", tmp_path / "local", *common)
    far = yoda("upscale", folder, "-o", tmp_path / "ray", *common, "--engine", "ray")
    assert local.code == far.code == 4, far.err
    assert len(results(tmp_path / "ray")) == 5
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert far.err.count("bad.png") == 2  # when it happens, and again at the end


@pytest.mark.slow
def test_regions_that_decide_on_actors_give_the_bytes_of_the_local_engine(
    yoda, cluster, folder, tmp_path, tiny_checkpoint
):
    common = ("--model", tiny_checkpoint, "--exact", "--block", "256", "--adaptive", "--steps", 12)
    expected = None
    for more in ((), ("-j", "2"), ("--engine", "ray"), ("--engine", "ray", "-j", "1")):
        target = tmp_path / "-".join(more or ("local",))
        done = yoda("upscale", folder, "-o", target, *common, *more)
        assert done.code == 4, done.err
        expected = expected or results(target)
        assert results(target) == expected, more
    assert len(expected) == 5


def test_regions_of_one_picture_may_decide_in_different_processes(yoda, tmp_path, tiny_checkpoint):
    """What actors do to a picture that is cut, in any order: its bytes and its leaps stay."""
    from yoda_cli.upscaling.batch.ray import Actor

    (tmp_path / "in").mkdir()
    save_photo(tmp_path / "in" / "a.png", 40, 100)
    options = UpscaleOptions(
        model=str(tiny_checkpoint), exact=True, device="cpu", steps=9, block=256, adaptive=True
    )
    model, writing = find_model(options), WriteOptions()
    actors = [Actor(options, writing, {}) for _ in range(2)]
    made = []
    for name, order in (("one", 1), ("two", -1)):
        naming = Naming(tmp_path / name, model.name, 4.0, 0, writing, "x4")
        found = [Found(tmp_path / "in" / "a.png", tmp_path / "in")]
        (item,) = plan_batch(found, naming, model, options).items
        looked = actors[0].look(item)
        places = range(len(looked.plan.blocks))[::order]
        blocks = {i: actors[i % 2].block(looked, i) for i in places}
        actors[1].join(item, looked, *(blocks[i] for i in sorted(blocks)))
        made.append((item.target.read_bytes(), [blocks[i].region for i in sorted(blocks)]))
    assert len(made[0][1]) >= 2
    assert made[0] == made[1]
    done = yoda(
        "upscale", tmp_path / "in", "-o", tmp_path / "local", "--model", tiny_checkpoint,
        "--exact", "--block", "256", "--adaptive", "--steps", 9,
    )  # fmt: skip
    assert done.code == 0, done.err
    (local,) = results(tmp_path / "local").values()
    assert local == made[0][0]


def test_blocks_of_a_cut_picture_move_the_bar():
    from yoda_cli.upscaling.batch.ray import _cutter

    pool = SimpleNamespace(waiting=deque(), ray=SimpleNamespace(get=lambda reference: reference))
    shares = []
    cut = _cutter(pool, "item", "there", print, shares.append)
    cut(SimpleNamespace(plan=SimpleNamespace(blocks=[1, 2, 3])))
    for call in list(pool.waiting):
        call.then(object())
    assert shares == [0.25, 0.5, 0.75]
    assert pool.waiting[0].method == "join"


@pytest.mark.slow
def test_an_actor_that_is_killed_loses_nothing(cluster, folder, tmp_path, tiny_checkpoint):
    from yoda_cli.upscaling.batch import ray as ray_engine

    (folder / "bad.png").unlink()
    options = UpscaleOptions(
        model=str(tiny_checkpoint), exact=True, device="cpu", steps=100, block=256
    )
    model, writing = find_model(options), WriteOptions()
    naming = Naming(tmp_path / "out", model.name, 4.0, 0, writing, "x4")
    found = [Found(p, folder) for p in sorted(folder.iterdir())]
    batch = plan_batch(found, naming, model, options)
    remote = ray.remote(num_cpus=1)(ray_engine.Actor)
    pool = ray_engine.Pool(ray, lambda: remote.remote(options, writing, {}), 2)
    began, killed = time.monotonic(), []

    def strike(item, record):
        if not killed:
            ray.kill(pool.actors[0])
            killed.append(time.monotonic() - began)

    done = []
    events = Events(lambda item, record: (done.append(item), strike(item, record)))
    first = pool.actors[0]
    assert ray_engine._run(batch, events, pool, lambda item: item.pixels > 5000) == []
    assert killed
    assert pool.actors[0] is not first
    assert len(done) == len(results(tmp_path / "out")) == 5


def test_a_ray_that_does_not_start_is_said(yoda, folder, tiny_checkpoint, monkeypatch):
    tried = []

    def init(**how):
        tried.append(how)
        raise Exception("The current node timed out during startup")

    ray.shutdown()
    monkeypatch.setattr(ray, "init", init)
    done = yoda("upscale", folder, "--model", tiny_checkpoint, "--engine", "ray")
    assert done.code == 6, done.err
    assert "Ray did not start: The current node timed out" in done.err
    assert "internal error" not in done.err
    assert len(tried) == 3


def test_a_cluster_that_is_not_there_is_a_device_error(yoda, folder, tiny_checkpoint):
    ray.shutdown()
    done = yoda("upscale", folder, "--model", tiny_checkpoint, "--engine", "ray", "--address",
                "127.0.0.1:1")  # fmt: skip
    assert done.code == 6, done.err
    assert "no Ray cluster" in done.err
