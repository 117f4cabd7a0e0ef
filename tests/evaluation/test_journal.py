"""The journal of a benchmark: kept where it can be, and never the end of one."""

import json
from pathlib import Path

import pytest

from yoda_cli.evaluation.journal import Journal

ROWS = [{"dataset": "d", "picture": f"p{n}", "method": "m", "psnr": n} for n in range(3)]


def test_rows_are_there_again_but_for_one_that_was_half_written(tmp_path):
    path = tmp_path / "deep" / "j.jsonl"
    first = Journal.open(path)
    for row in ROWS:
        first.add(row)
    with path.open("ab") as file:
        file.write(b'{"dataset": "\xff')
    again = Journal.open(path)
    assert list(again.rows.values()) == ROWS
    again.add(ROWS[0] | {"picture": "new"})
    assert [json.loads(line)["picture"] for line in path.read_text().splitlines()] == [
        "p0", "p1", "p2", "new",
    ]  # fmt: skip
    assert Journal.open(path, fresh=True).rows == {}
    assert not path.exists()


def test_where_nothing_can_be_kept_rows_are_kept_here_and_it_is_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    journal = Journal.open(tmp_path / "file" / "j.jsonl", said.append)
    for row in ROWS:
        journal.add(row)
    assert list(journal.rows.values()) == ROWS
    assert len(said) == 1
    assert "cannot write" in said[0]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_journal_that_may_not_be_touched_is_none(tmp_path, monkeypatch, fresh):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path, said = tmp_path / "j.jsonl", []
    Journal.open(path).add(ROWS[0])
    monkeypatch.setattr(Path, "unlink" if fresh else "read_bytes", refuse)
    journal = Journal.open(path, said.append, fresh=fresh)
    assert (journal.rows, journal.path, len(said)) == ({}, None, 1)
