"""``python -m yoda_cli``: the same command line from a plain checkout."""

from yoda_cli.cli import main

main()
