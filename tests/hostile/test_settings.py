"""The file of defaults, damaged or of wrong types: one line, never an internal error."""

import pytest
from fakes import save_photo

DAMAGED = [
    b"[", b"=", b"\0", b"\xff", b"[upscale]\n[upscale]", b"upscale = 1", b"[[upscale]]",
    b"[upscale.x]\ny = 1", b"[weights]\nlist = 3", b"[weights]\nx = 1",
    b"[weights.list.all]\nx = 1", b"a = " + b"[" * 5_000, b"a = " + b"{a = " * 3_000, b"'' = 1",
    b'files-from = "\\u0000"', b"model = {x = 1}", b"steps = [[1]]",
    b"scale = 1979-05-27",
]  # fmt: skip
LINES = [
    "upscale a.png --dry-run -m TINY -q",
    *(pytest.param(line, marks=pytest.mark.slow) for line in ("config", "weights list", "help")),
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: repr(text[:30]))
def test_defaults_that_cannot_be_meant(yoda, tmp_path, monkeypatch, tiny_checkpoint, text, line):
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "a.png", 9, 12)
    (tmp_path / "config.toml").write_bytes(text)
    monkeypatch.setenv("YODA_CONFIG", str(tmp_path / "config.toml"))
    done = yoda(*line.replace("TINY", str(tiny_checkpoint)).split())
    assert done.code in (0, 2), done.err
    assert "internal error" not in done.err
    if line.startswith("upscale") and not text.startswith(b"[weights"):
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
