"""Every reference vector of a golden folder, one test a file.

``YODA_GOLDEN_DIR`` names a folder of such files with a MANIFEST.json; without it the copies in
``tests/data/golden`` are run.
"""

import functools
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from golden import KINDS, compute, differences, load_golden

from yoda_cli.models.nets.text import tokenize

OWN = Path(__file__).parents[1] / "data" / "golden"
FOLDER = Path(os.environ.get("YODA_GOLDEN_DIR") or OWN)
TENSORS = sorted(FOLDER.glob("*.safetensors"))
TOKENS = sorted(set(FOLDER.glob("*.json")) - {FOLDER / "MANIFEST.json"})
MANIFEST = json.loads((FOLDER / "MANIFEST.json").read_text())


def tolerances(path):
    return MANIFEST[path.stem]["out"]


@functools.cache
def computed(path):
    return compute(load_golden(path))


def can_be_built(golden):
    return golden.kind != "diffbir_stage1_scunet" or golden.config["config"]["head_dim"] == 32


@pytest.mark.parametrize("path", TENSORS + TOKENS, ids=lambda path: path.name)
def test_golden(path):
    if path.suffix == ".json":
        cases = json.loads(path.read_text())["cases"]
        assert cases
        for case in cases:
            assert tokenize([case["text"]])[0].tolist() == case["tokens"]
        return
    golden = load_golden(path)
    if not can_be_built(golden):
        pytest.skip("spandrel builds SCUNet with heads of 32 channels only")
    if golden.kind not in KINDS:
        pytest.skip(f"{golden.kind} is not implemented: {path.name}")
    assert golden.outputs
    assert differences(golden.outputs, computed(path), tolerances(path)) == []


def one_of_each_kind():
    seen = {}
    for path in TENSORS:
        if can_be_built(golden := load_golden(path)):
            seen.setdefault(golden.kind, path)
    return [path for kind, path in seen.items() if kind in KINDS]


def altered(value, rule):
    """``value`` with one finite entry moved ten times as far as its tolerance allows."""
    finite = value.isfinite()
    largest = value[finite].abs().max().item()
    allowed = 0 if rule.get("exact") else rule.get("atol", 0) + rule.get("rtol", 0) * largest
    moved = value.double().clone()  # whole numbers may be allowed to be off by less than one
    moved.view(-1)[finite.view(-1).nonzero()[0]] += 10 * allowed or 1
    return moved


@pytest.mark.parametrize("path", one_of_each_kind(), ids=lambda path: path.name)
def test_an_altered_output_is_noticed_whichever_it_is(path):
    golden, rules = load_golden(path), tolerances(path)
    for name, value in golden.outputs.items():
        outputs = {**golden.outputs, name: altered(value, rules[f"out.{name}"])}
        wrong = differences(outputs, computed(path), rules)
        assert [line.split(":")[0] for line in wrong] == [name]


@pytest.mark.parametrize("path", one_of_each_kind(), ids=lambda path: path.name)
def test_an_output_nobody_computes_is_noticed(path):
    golden = load_golden(path)
    outputs = {**golden.outputs, "invented": torch.zeros(1)}
    assert differences(outputs, computed(path), tolerances(path)) == ["invented: not computed"]


def test_not_a_number_is_noticed_and_infinity_is_compared_by_place():
    rules = {"out.x": {"atol": 1.0, "rtol": 1.0}}
    expected = {"x": torch.tensor([1.0, torch.inf])}
    assert differences(expected, expected, rules) == []
    for wrong in ([torch.nan, torch.inf], [1.0, torch.nan], [1.0, 1e30], [torch.inf, 1.0]):
        assert differences(expected, {"x": torch.tensor(wrong)}, rules) != []
    assert differences(expected, {"x": torch.tensor([1.0])}, rules) != []


def test_the_folder_is_not_empty():
    assert TENSORS


def test_our_copies_are_the_files_of_their_manifest():
    manifest = json.loads((OWN / "MANIFEST.json").read_text())
    digests = {p.stem: hashlib.sha256(p.read_bytes()) for p in OWN.glob("*.safetensors")}
    assert {name: digest.hexdigest() for name, digest in digests.items()} == {
        name: entry["sha256"] for name, entry in manifest.items()
    }
