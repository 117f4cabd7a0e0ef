"""``python -m yoda_cli`` and the command ``yoda``: Ctrl-C ends it from the first moment on.

That is at once after Python itself has started: nothing is imported that is not there yet.
"""

# What ``signal`` is made of; it is there already, and ``signal`` itself would import more first.
import _signal as signal  # type: ignore[import-not-found]
import os


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
