"""Notes that yoda keeps for itself: damaged ones are none."""

import json

import pytest

from yoda_cli.files.notes import are_numbers, parse_notes, read_notes
from yoda_cli.models.calibration import RECORD, costs_of, forget
from yoda_cli.upscaling.batch.manifest import NAME, Manifest

DAMAGED = [b"", b"[", b"null", b"3", b"[]", b'"x"', b"[" * 100_000, b'{"a":' * 20_000,
           b"\xff\xfe", b"\0" * 9, b"9" * 6_000]  # fmt: skip


@pytest.mark.parametrize("data", DAMAGED, ids=repr)
def test_damaged_notes_are_none(tmp_path, data):
    (tmp_path / "notes.json").write_bytes(data)
    assert read_notes(tmp_path / "notes.json") == {}
    assert read_notes(tmp_path / "nothing.json") == {}
    (tmp_path / NAME).write_bytes(data + b'\n{"target": "a.png", "sha256": "x"}\n')
    assert Manifest.load(tmp_path).made(tmp_path / "a.png") == "x"


def test_notes_are_an_object():
    assert parse_notes('{"a": [1]}') == {"a": [1]}


@pytest.mark.parametrize("value", [None, "1", -1, float("nan"), float("inf"), True, [], {}])
def test_what_is_no_number_is_told(value):
    assert are_numbers([0, 1.5])
    assert not are_numbers([0, value])


@pytest.mark.parametrize("value", [None, "1", -1.0, [], {}, float("inf")])
def test_costs_that_are_no_costs_are_measured_again(tmp_path, monkeypatch, tiny_checkpoint, value):
    from yoda_cli.config import UpscaleOptions
    from yoda_cli.models.loading import find_model

    monkeypatch.setenv("YODA_CACHE_DIR", str(tmp_path))
    model = find_model(UpscaleOptions(model=str(tiny_checkpoint), device="cpu"))
    forget()
    costs_of(model)
    record = tmp_path / RECORD
    kept = json.loads(record.read_bytes())
    (key,) = kept
    for name in kept[key]["costs"]:
        wrong = {key: {**kept[key], "costs": {**kept[key]["costs"], name: value}}}
        record.write_text(json.dumps(wrong))
        forget()
        assert are_numbers([getattr(costs_of(model), name)])
    forget()
