"""Unpacking a data set's archive: nothing leaves the folder, nothing grows without bound."""

from __future__ import annotations

import lzma
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from yoda_cli.errors import WeightsError

MAX_MEMBERS = 200_000  # files: beyond any data set of pictures that is offered
MAX_RATIO = 200  # unpacked over packed bytes; pictures hardly shrink at all
#: What Python's own readers raise of a damaged, encrypted or foreign archive.
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)
SMALL_BYTES = 16 << 20  # unpacked, which may shrink by any ratio


def unpack(archive: Path, folder: Path) -> list[Path]:
    """The files of a zip, under ``folder``, each written beside and renamed.

    Every name is checked before the first byte is written. Raises ``WeightsError`` for a name that
    leads out of the folder, a link, an absurd size, a damaged archive.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if not m.is_dir()]
            targets = [target_of(member, folder, archive) for member in members]
            check_sizes(members, archive, folder)
            for member, target in zip(members, targets, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f".{target.name}.partial")
                try:
                    with opened.open(member) as source, partial.open("wb") as sink:
                        shutil.copyfileobj(source, sink)
                    partial.replace(target)
                finally:
                    partial.unlink(missing_ok=True)
    except DAMAGED as error:
        raise WeightsError(f"{archive} is no usable zip: {error}") from error
    except OSError as error:
        raise WeightsError(f"{archive} cannot be unpacked to {folder}: {error}") from error
    return targets


def target_of(member: zipfile.ZipInfo, folder: Path, archive: Path) -> Path:
    """Where a member goes; refuses names and kinds that could reach elsewhere."""
    name = PurePosixPath(member.filename)
    risky = name.is_absolute() or ".." in name.parts or "\\" in member.filename
    if risky or ":" in member.filename or not name.parts:
        raise WeightsError(f"{archive} was refused: it would write {member.filename!r}")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise WeightsError(f"{archive} was refused: {member.filename!r} is a link")
    target = folder / name
    if folder.resolve() not in target.resolve().parents:  # a link that is there already
        raise WeightsError(f"{archive} was refused: {member.filename!r} leads out of {folder}")
    return target


def check_sizes(members: list[zipfile.ZipInfo], archive: Path, folder: Path) -> None:
    """Refuse an archive that claims to unpack to far more than it is, or than there is room for."""
    total = sum(member.file_size for member in members)
    packed = archive.stat().st_size
    if len(members) > MAX_MEMBERS or total > max(MAX_RATIO * packed, SMALL_BYTES):
        raise WeightsError(
            f"{archive} was refused: {len(members):,} files of {total:,} bytes from {packed:,}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if total > shutil.disk_usage(folder).free:
        raise WeightsError(f"{archive} needs {total / 1e6:,.0f} MB in {folder}: not enough room")
