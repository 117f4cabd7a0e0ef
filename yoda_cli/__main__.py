"""``python -m yoda_cli`` and the command ``yoda``: Ctrl-C ends it from the first moment on."""

import os
import signal
from contextlib import suppress
from types import FrameType


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from yoda_cli.cli import main as run

    run()


def _leave(number: int, frame: FrameType | None) -> None:
    """Nothing was begun yet."""
    with suppress(OSError):
        head = b"\r\x1b[K" if os.isatty(2) else b""  # over the ^C of the terminal
        os.write(2, head + b"interrupted: nothing was done\n")
    os._exit(130)


if __name__ == "__main__":
    main()
