"""``yoda export``: a network in the format of another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoda_cli.cli import _names, _render
from yoda_cli.cli._options import ModelName, Overwrite, Quiet, files_named
from yoda_cli.cli._room import check_room
from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import UsageError

FORMATS = ("onnx",)
MARK = b"\x12\x04yoda"  # the producer, in a file's first bytes


def export(
    model: ModelName = "general",
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME", show_default=False, autocompletion=_names.among(FORMATS),
            help="onnx (default: onnx).",
        ),
    ] = "onnx",
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FOLDER", help="Where to (default: here).",
                     show_default=False),
    ] = Path(),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write a compact model as two ONNX graphs, checked against torch; takes about a minute."""
    if format not in FORMATS:
        raise UsageError(f"format {format!r} is not allowed; use {', '.join(FORMATS)}")
    check_room()
    from yoda_cli.files import make_folder, write_atomically
    from yoda_cli.files.overwriting import Outputs, has_mark
    from yoda_cli.models.loading import find_model
    from yoda_cli.models.onnx_graphs import (
        PARTS,
        check_exportable,
        check_packages,
        difference,
        onnx_graph,
    )

    found = find_model(UpscaleOptions(model=model, device="cpu", precision="fp32"))
    net = check_exportable(found.backbone, found.name)
    check_packages()
    make_folder(output)
    outputs = Outputs("overwrite" if overwrite else "own", files_named(model))
    targets = {part: output / f"{found.name}_{part}.onnx" for part in PARTS}
    checks = {
        part: outputs.claim(path, f"the {part}", has_mark(MARK, 64))
        for part, path in targets.items()
    }
    for part, path in targets.items():
        with _render.waiting(f"exporting the {part}", quiet=quiet):
            data = onnx_graph(net, part)
            most = difference(net, part, data)
        write_atomically(path, data, checks[part])
        if not quiet:
            _render.note(f"{path.name}: {len(data) / 1e6:.1f} MB, {most:.0e} from torch at most")
        _render.place(path)
