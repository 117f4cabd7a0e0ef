"""``python -m yoda_cli`` and the command ``yoda``: Ctrl-C ends it from the first moment on.

That is a few milliseconds after Python itself has started, so this imports nothing else.
"""

import os
import signal


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from yoda_cli.cli import main as run

    run()


def _leave(number: int, frame: object) -> None:
    """Nothing was begun yet."""
    try:
        head = b"\r\x1b[K" if os.isatty(2) else b""  # over the ^C of the terminal
        os.write(2, head + b"interrupted: nothing was done\n")
    except OSError:
        pass  # nobody listens
    os._exit(130)


if __name__ == "__main__":
    main()
