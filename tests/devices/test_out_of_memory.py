"""Out of memory on any call: the run goes on with less, says so, and no pixel is wrong."""

import pytest
import torch
from fakes import enlarge, fake_model, photo, plan_of

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.out_of_memory import Counter
from yoda_cli.errors import DeviceError, is_out_of_memory
from yoda_cli.models.base import Condition
from yoda_cli.upscaling.denoisers import TiledDenoiser

OPTIONS = UpscaleOptions(steps=4, lower_bound=0.1, tile=64, attention="uniform")
CPU = "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"


def failing(model, when, error):
    """The model, running out of memory where ``when(call number, z_t)`` says so."""
    predict, calls = model.backbone.predict, iter(range(10_000))

    def run(z_t, t, condition, mask):
        if when(next(calls), z_t):
            raise error
        return predict(z_t, t, condition, mask)

    model.backbone.predict = run
    return model


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), MemoryError(), RuntimeError(CPU)])
@pytest.mark.parametrize("call", [0, 3, 15])
def test_one_failed_call_is_repeated_with_the_same_bytes(call, error):
    lr = photo(24, 32)
    calm = enlarge(lr, fake_model(), OPTIONS)
    hard = enlarge(lr, failing(fake_model(), lambda n, z: n == call, error), OPTIONS)
    assert torch.equal(hard.image, calm.image)
    assert hard.recovered.repeated == 1
    assert not hard.recovered.smaller_tiles
    assert not calm.recovered


@pytest.mark.slow
def test_a_window_that_never_fits_is_halved_until_it_does():
    lr = photo(40, 48)
    whole = UpscaleOptions(steps=4, lower_bound=0.1, tile=0, attention="uniform")
    calm = enlarge(lr, fake_model(), whole)
    model = failing(fake_model(), lambda n, z: z.shape[-1] * z.shape[-2] > 110**2, MemoryError())
    hard = enlarge(lr, model, whole)
    assert torch.allclose(hard.image, calm.image, atol=1e-6)
    assert hard.recovered.smaller_tiles >= 4
    assert hard.calls > calm.calls


def test_no_memory_even_for_the_smallest_tile_is_a_device_error():
    model = failing(fake_model(), lambda n, z: True, MemoryError())
    with pytest.raises(DeviceError, match="even with a tile of"):
        enlarge(photo(24, 32), model, OPTIONS)


def test_other_errors_are_not_taken_for_it():
    model = failing(fake_model(), lambda n, z: n == 2, RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        enlarge(photo(24, 32), model, OPTIONS)
    assert not is_out_of_memory(ValueError("out of range"))


@pytest.mark.parametrize("fits", [8, 4, 1])
def test_a_group_of_windows_is_made_smaller_with_the_same_bytes(fits):
    model = fake_model()
    plan = plan_of(torch.ones(1, 1, 192, 256), model, OPTIONS)
    condition = Condition(torch.zeros(1, 3, 192, 256))
    z_t, mask = torch.randn(1, 3, 192, 256), torch.ones(1, 1, 192, 256, dtype=torch.bool)
    alone = TiledDenoiser(model, condition, plan, 8)(z_t, 100, mask)
    failing(model, lambda n, z: z.shape[0] > fits, torch.OutOfMemoryError("x"))
    counter = Counter()
    grouped = TiledDenoiser(model, condition, plan, 8, 8, counter)
    assert max(len(g) for g in grouped.groups(plan.tiles(0))) > 1
    assert torch.equal(grouped(z_t, 100, mask), alone)
    assert counter.calls == len(plan.tiles(0))
    largest = max(len(g) for g in grouped.groups(plan.tiles(0)))
    assert bool(counter.smaller_groups) == (largest > fits)


@pytest.mark.parametrize("fails", [1, 2, 5])
def test_memory_that_runs_out_while_encoding_is_survived_too(fails):
    lr = photo(40, 48)
    options = UpscaleOptions(steps=4, lower_bound=0.1, attention="edge")
    calm = enlarge(lr, fake_model(), options)
    model = fake_model()
    encode, left = model.backbone.encode, iter(range(fails))

    def failing_encode(x, strength=0.0):
        if next(left, None) is not None:
            raise MemoryError
        return encode(x, strength)

    model.backbone.encode = failing_encode
    hard = enlarge(lr, model, options)
    assert torch.allclose(hard.image, calm.image, atol=1e-6)
    assert hard.recovered


def test_a_canvas_that_does_not_fit_is_one_line(monkeypatch):
    monkeypatch.setattr("yoda_cli.upscaling.memory_limits.free_bytes", lambda device: 1000)
    with pytest.raises(DeviceError, match="leave --block at auto"):
        enlarge(photo(24, 32), fake_model(), OPTIONS)
    monkeypatch.undo()

    def none_left(*arguments, **more):
        raise MemoryError

    monkeypatch.setattr("yoda_cli.upscaling.blocks.make_draw", none_left)
    with pytest.raises(DeviceError, match="smaller --block"):
        enlarge(photo(24, 32), fake_model(), OPTIONS)
