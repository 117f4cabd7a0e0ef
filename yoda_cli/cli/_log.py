"""The file of ``--log-file``: only a new file, an empty one or an earlier log is written to.

What cannot be written to it is lost, and said once at the end.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from yoda_cli.errors import OutputError
from yoda_cli.files import check_regular, name_write_errors, shown
from yoda_cli.files.paths import is_there

LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ yoda_cli[\w.]*: ")
HEAD = 256  # bytes in which the beginning of a line is found

LOGGER = logging.getLogger("yoda_cli")


class LogFile(logging.FileHandler):
    """Appends lines; the first that cannot be written is remembered."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if self.error is None and self.stream is not None:
            try:
                self.stream.write(f"{self.format(record)}{self.terminator}")
                self.stream.flush()
            except OSError as error:
                self.error = error

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self.error = self.error or error


def keep_log(path: Path | None) -> None:
    """Every line that is said, and what the library logs, goes to ``path`` too.

    Raises OutputError where anything else stands than an earlier log.
    """
    if path is None:
        return
    check_regular(path)
    with name_write_errors(path):
        if is_there(path) and not is_log(path):
            raise OutputError(f"{shown(path)} exists and is no log of yoda's; choose another file")
        LOGGER.addHandler(LogFile(path))
    LOGGER.setLevel(logging.DEBUG)


def is_log(path: Path) -> bool:
    """Whether a file is empty or begins as a log does."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    return not head or LINE.match(head) is not None


def logs() -> list[Path]:
    """The files that are being logged to."""
    return [Path(h.baseFilename) for h in LOGGER.handlers if isinstance(h, LogFile)]


def end_log(handler: logging.Handler) -> OutputError | None:
    """Stop logging by ``handler``; what was wrong with its file."""
    LOGGER.removeHandler(handler)
    handler.close()
    if not isinstance(handler, LogFile):
        return None
    LOGGER.setLevel(logging.NOTSET)
    if handler.error is None:
        return None
    name, reason = shown(Path(handler.baseFilename)), handler.error.strerror or handler.error
    return OutputError(f"cannot write the log {name}: {reason}")
