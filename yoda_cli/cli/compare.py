"""``yoda compare``: two pictures laid over each other, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoda_cli.cli import _early, _render
from yoda_cli.cli._options import Overwrite, Quiet
from yoda_cli.cli._room import check_room


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A picture.", show_default=False)],
    second: Annotated[
        Path, typer.Argument(metavar="B", help="Another, of any size.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="The page (default: beside B)."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the measures as one JSON document.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Compare two pictures: a page with a slider, a lens of 100 % and the difference."""
    from dataclasses import asdict

    _early.check_inputs([first, second])
    check_room()
    with _render.waiting("starting", quiet=quiet):
        from yoda_cli.files.overwriting import Outputs
        from yoda_cli.reports.comparison import load_pair, write_comparison
        from yoda_cli.reports.page import is_page

    page = output or second.with_name(f"{second.stem}_compared.html")
    outputs = Outputs("overwrite" if overwrite else "own", [first, second])
    check = outputs.claim(page, "the page", is_page)
    pair = load_pair(first, second)
    found = write_comparison(page, check, pair)
    if not quiet:
        much = "all pixels are alike" if found.psnr is None else f"PSNR {found.psnr:.2f} dB"
        _render.note(
            f"{pair.names[0]} and {pair.names[1]}: {much}; {100 * found.seen_share:.1f} % of the "
            "pixels differ visibly"
        )
    if as_json:
        _render.document({"schema": 1, "page": str(page), **asdict(found)})
    else:
        _render.place(page)
