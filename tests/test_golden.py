"""Every reference vector of a golden folder, one test a file.

``YODA_GOLDEN_DIR`` names a folder of such files with a MANIFEST.json; without it the copies in
``tests/data/golden`` are run.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden import KINDS, compare, load_golden

FOLDER = Path(os.environ.get("YODA_GOLDEN_DIR") or Path(__file__).parent / "data" / "golden")
FILES = sorted(FOLDER.glob("*.safetensors")) + sorted(FOLDER.glob("*_tokenizer.json"))
MANIFEST = json.loads((FOLDER / "MANIFEST.json").read_text())


def tolerances(path):
    return MANIFEST[path.stem]["out"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path):
    if path.suffix == ".json":
        pytest.skip(f"tokenizer vectors are not implemented: {path.name}")
    golden = load_golden(path)
    if golden.kind not in KINDS:
        pytest.skip(f"{golden.kind} is not implemented: {path.name}")
    assert compare(golden, tolerances(path)) == []


def implemented():
    seen = {}
    for path in FILES:
        if path.suffix == ".safetensors":
            golden = load_golden(path)
            if golden.kind in KINDS:
                seen.setdefault(golden.kind, path)
    return list(seen.values())


@pytest.mark.parametrize("path", implemented(), ids=lambda path: path.stem)
def test_an_altered_output_is_noticed(path):
    golden = load_golden(path)
    name = sorted(golden.outputs)[-1]
    rule = tolerances(path)[f"out.{name}"]
    altered = golden.outputs[name].clone()
    step = 10 * (rule.get("atol", 0) + rule.get("rtol", 0) * altered.abs().max().item()) or 1
    altered.view(-1)[-1] += step
    changed = replace(golden, outputs={**golden.outputs, name: altered})
    assert [line.split(":")[0] for line in compare(changed, tolerances(path))] == [name]


@pytest.mark.parametrize("path", implemented(), ids=lambda path: path.stem)
def test_an_output_nobody_computes_is_noticed(path):
    golden = load_golden(path)
    changed = replace(golden, outputs={**golden.outputs, "invented": torch.zeros(1)})
    assert compare(changed, tolerances(path)) == ["invented: not computed"]


def test_the_folder_is_not_empty():
    assert FILES
