"""What stands at a path, asked without an error: where one may not look, nothing does.

``pathlib`` says the same from Python 3.14 on, and raises PermissionError before. What is read or
written then says itself why it cannot be.
"""

from __future__ import annotations

import os
from pathlib import Path

from yoda_cli.errors import InputError
from yoda_cli.files import shown


def is_there(path: Path) -> bool:
    """Whether anything stands there; a link counts for what it leads to."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Whether a regular file stands there, or a link to one."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether a folder stands there, or a link to one."""
    return os.path.isdir(path)  # noqa: PTH112


def is_link(path: Path) -> bool:
    """Whether a symbolic link stands there, wherever it leads."""
    return os.path.islink(path)  # noqa: PTH114


def entries_of(folder: Path) -> list[Path]:
    """What a folder holds, in name order. InputError where it may not be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read {shown(folder)}: {error.strerror or error}") from error


def is_closed(path: Path) -> bool:
    """Whether something may stand there, and one may not look."""
    try:
        path.stat()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return False
