"""Pickles: tensors come out, whatever else is named is inert or refused, and nothing runs."""

import argparse
import pickle
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path

import pytest
import torch

from yoda_cli.errors import WeightsError
from yoda_cli.weights.tensors import read_tensors

TENSORS = OrderedDict(
    weight=torch.arange(12.0).view(3, 4),
    half=torch.ones(2).half(),
    count=torch.tensor(7),
    parameter=torch.nn.Parameter(torch.ones(2)),
    view=torch.arange(10)[::3],
)


class Runs:
    """Unpickling this would call ``function``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture
def foreign(monkeypatch):
    """Objects of a package that will not be there when they are read."""
    module = types.ModuleType("lightning_like")
    for name, base in (("State", object), ("Table", dict), ("Items", list)):
        made = type(name, (base,), {"__module__": "lightning_like", "__qualname__": name})
        setattr(module, name, made)
    monkeypatch.setitem(sys.modules, "lightning_like", module)
    state, table, items = module.State(), module.Table(a=1), module.Items([1, 2])
    state.field = 3
    return {"state": state, module.State: table, "items": items, "path": Path("/x")}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_lightning_checkpoint_yields_its_tensors(
    tmp_path, foreign, zipped, protocol, monkeypatch
):
    lists = defaultdict(list, a=[1])
    content = {
        "state_dict": TENSORS,
        "lists": lists,
        "args": argparse.Namespace(x=1),
        **foreign,
        "epoch": 3,
    }
    path = tmp_path / "model.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    monkeypatch.delitem(sys.modules, "lightning_like")
    found = read_tensors(path)
    assert list(found) == list(TENSORS)
    assert all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)
    assert all(type(value) is torch.Tensor for value in found.values())


def test_the_state_of_a_module_is_read(tmp_path):
    """It is an OrderedDict with an attribute beside its items."""
    state = torch.nn.Sequential(torch.nn.Linear(2, 3)).state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    assert list(read_tensors(tmp_path / "a.pth")) == ["0.weight", "0.bias"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"model": t},
        lambda t: {"state_dict": {"model": t}, "global_step": 4},
        lambda t: {"params_ema": t},
        lambda t: {f"module.{key}": value for key, value in t.items()},
    ],
)
def test_wrappers_are_taken_off(tmp_path, wrap):
    torch.save(wrap(dict(TENSORS)), tmp_path / "a.pth")
    assert list(read_tensors(tmp_path / "a.pth")) == list(TENSORS)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "function", ["os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "shutil.rmtree"]
)
def test_code_is_refused_and_not_run(tmp_path, function, zipped):
    import importlib

    module, name = function.split(".")
    found = getattr(importlib.import_module(module), name)
    trace = tmp_path / "trace"
    evil = Runs(found, f"touch {trace}" if name in ("system", "Popen") else f"open({str(trace)!r})")
    content = {"state_dict": TENSORS, "x": evil}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"was refused: it would call .*code in it is never run"):
        read_tensors(tmp_path / "a.ckpt")
    assert not trace.exists()


def test_a_bare_pickle_with_code_is_refused(tmp_path):
    import os

    (tmp_path / "a.pth").write_bytes(pickle.dumps(Runs(os.system, f"touch {tmp_path}/trace")))
    with pytest.raises(WeightsError, match="refused"):
        read_tensors(tmp_path / "a.pth")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_half_a_file_is_one_clear_line(tmp_path, zipped):
    torch.save({"state_dict": TENSORS}, tmp_path / "a", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "a").read_bytes()
    for length in {0, 1, 100, len(whole) // 3, len(whole) // 2, len(whole) - 30}:
        (tmp_path / "b.pth").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="truncated or damaged"):
            read_tensors(tmp_path / "b.pth")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, torch.ones(3), "text"])
def test_what_holds_no_table_of_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="no table of weights"):
        read_tensors(tmp_path / "a.pth")


def test_a_torchscript_program_is_refused(tmp_path):
    import warnings
    import zipfile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("a/constants.pkl", b"")
            archive.writestr("a/code/__torch__.py", "raise")
    with pytest.raises(WeightsError, match="TorchScript program"):
        read_tensors(tmp_path / "a.pt")
