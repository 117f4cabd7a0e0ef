"""Where each result goes and in which format.

Every refusal comes before any work.
"""

from __future__ import annotations

import hashlib
import os
import string
from dataclasses import dataclass
from pathlib import Path

from yoda_cli.config import WriteOptions
from yoda_cli.errors import OutputError, UsageError
from yoda_cli.files import NAME_BYTES, real
from yoda_cli.files.paths import is_folder
from yoda_cli.images import (
    Header,
    check_format_size,
    format_of,
    output_format_for,
    shown,
)
from yoda_cli.images.formats import BY_SUFFIX, FORMATS
from yoda_cli.upscaling.batch.inputs import STREAM, Found, check_inside

TEMPLATE = "{stem}_{model}_{size}"  # of a result beside its input; in a folder of results: {stem}
FIELDS = {"stem", "model", "scale", "size", "seed"}


@dataclass(frozen=True)
class Naming:
    """What fills a name template: ``output`` is -o, ``label`` the size as asked (x4, w2000)."""

    output: Path | None
    model: str
    scale: float
    seed: int
    writing: WriteOptions
    label: str


def check_naming(writing: WriteOptions) -> None:
    """Refuse a format that is not written, or a template that cannot be filled."""
    if writing.format is not None:
        named_format(writing.format)
    if writing.name_template is not None:
        check_template(writing.name_template)


def check_template(template: str) -> None:
    """Refuse a template with unknown fields or a path in it."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise UsageError(f"name template {template!r} is not allowed: {error}") from error
    if not fields <= FIELDS or not template or os.sep in template or "/" in template:
        raise UsageError(
            f"name template {template!r} is not allowed; use text and "
            f"{', '.join('{' + name + '}' for name in sorted(FIELDS))}, no folder"
        )


def folder_for(root: Path, naming: Naming) -> Path:
    """Where the results of a folder go."""
    if naming.output is not None:
        return naming.output
    name = real(root).name or "pictures"
    return real(root).parent / f"{name}_{naming.model}_{naming.label}"


def target_of(found: Found, header: Header, naming: Naming, *, many: bool) -> tuple[Path, str]:
    """The path and format of one result. ``many``: -o must be a folder."""
    output, writing = naming.output, naming.writing
    if found.root is None and output is not None and not is_folder(output) and not many:
        return output, kind_of(output, header, writing)
    kind, suffix = output_format_for(header, found.path.suffix)
    if writing.format is not None:
        kind, suffix = named_format(writing.format)
    if found.root is not None:
        folder = folder_for(found.root, naming) / found.path.parent.relative_to(found.root)
        template = writing.name_template or "{stem}" + writing.suffix
    else:
        folder = output if output is not None else found.path.parent
        is_beside = found.path == STREAM or real(folder) == real(found.path.parent)
        plain = "{stem}" + writing.suffix if writing.suffix or not is_beside else TEMPLATE
        template = writing.name_template or plain
    check_template(template)
    stem = template.format(
        stem=found.path.stem, model=naming.model, scale=f"{naming.scale:g}", seed=naming.seed,
        size=naming.label,
    )  # fmt: skip
    target = folder / fitting(stem, suffix)
    if target.parent != folder or target.name in ("", ".", ".."):
        raise OutputError(f"{shown(found.path)}: the name {stem!r} is no file name")
    if found.root is not None:
        check_inside(target, folder_for(found.root, naming))
    return target, kind


def kind_of(output: Path, header: Header, writing: WriteOptions) -> str:
    """The format for a file that was named; standard output takes the input's."""
    if writing.format is not None:
        return named_format(writing.format)[0]
    if output == STREAM:
        return output_format_for(header, "")[0]
    return format_of(output)


def named_format(name: str) -> tuple[str, str]:
    """(format, suffix) of ``--format``."""
    suffix = f".{name.lower().lstrip('.')}"
    kind = BY_SUFFIX.get(suffix)
    if kind is None:
        known = ", ".join(form.suffixes[0][1:] for form in FORMATS.values())
        raise UsageError(f"format {name!r} is not allowed; use {known}")
    format_of(Path(f"x{suffix}"))  # whether this Pillow can write it
    return kind, suffix


def fitting(stem: str, suffix: str) -> str:
    """A file name of at most 255 bytes; what is cut off is told apart by its hash."""
    name = os.fsencode(stem + suffix)
    if len(name) <= NAME_BYTES:
        return stem + suffix
    mark = "~" + hashlib.sha256(os.fsencode(stem)).hexdigest()[:8] + suffix
    whole = os.fsencode(stem)[: NAME_BYTES - len(mark)].decode("utf-8", "ignore")
    return whole + mark


def check_size(header: Header, kind: str, scale: float) -> None:
    """Refuse a result that its format cannot hold."""
    check_format_size(kind, *(max(1, round(n * scale)) for n in (header.width, header.height)))
