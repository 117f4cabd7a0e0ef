"""``python -m yoda_cli`` and the command ``yoda``: Ctrl-C ends it from the first moment on."""

import os
import signal


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    from yoda_cli.cli import main as run

    run()


if __name__ == "__main__":
    main()
