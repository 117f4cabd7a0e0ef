"""A worker whose tasks are words. Imports nothing heavy: it stands for one that loads torch."""

import os

from yoda_cli.upscaling.batch.crew import Word


def echo(pipe, what):
    """Say every word twice, until one ends it."""
    if what == "unable":
        pipe.send((Word.UNABLE, "no such device"))
        return
    pipe.send((Word.READY, None))
    while (task := pipe.recv()) != "end":
        if task == "die":
            os._exit(9)
        pipe.send((Word.DONE, task * 2))
