"""Every command by name: where it is, its line in the list of commands, and its help.

A command's own module is imported when it is asked for, so that the list costs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import typer

from yoda_cli.cli._parsing import Command, Family
from yoda_cli.cli._record import unrolled


class Entry(NamedTuple):
    """``line`` is the first sentence of the command's help, or what stands in its place."""

    line: str
    function: str = ""  # where it is not called as its module is
    has_help: bool = True  # of the parser's; else of its own
    is_family: bool = False  # of commands within


COMMANDS = {
    "upscale": Entry("Make pictures larger.", has_help=False),
    "attention": Entry("Show where detail would be added first, without adding it."),
    "compare": Entry(
        "Compare two pictures: a page with a slider, a lens of 100 % and the difference."
    ),
    "bench": Entry(
        "Compare ways to enlarge pictures whose large originals are known. A stopped run goes on."
    ),
    "metrics": Entry(
        "Measure how near enlarged pictures are to their originals: two files, or two folders."
    ),
    "train": Entry("Train a checkpoint; a run that was stopped goes on where it was."),
    "export": Entry(
        "Write a compact model as two ONNX graphs, checked against torch; takes about a minute."
    ),
    "weights": Entry(
        "Models, weight files and data sets: list, download, verify, import, remove.",
        "app", is_family=True,
    ),
    "doctor": Entry(
        "Check Python, torch, devices, cache and weights; exit code 5 if something is broken."
    ),
    "config": Entry("Show the defaults that you have set, in a file or in YODA_* variables."),
    "help": Entry("Show the help of a command, or what the exit codes mean.", "help_"),
}  # fmt: skip


def add(group: typer.Typer, name: str, *, by_name: bool) -> None:
    """Add a command; ``by_name`` alone with its line in the list, without its options."""
    entry = COMMANDS[name]
    module = None if by_name else import_module(f"yoda_cli.cli.{name}")
    command: Any = getattr(module, entry.function or name) if module else nothing
    if entry.is_family:
        family = command if module else typer.Typer(help=entry.line)
        for inner in family.registered_commands:
            inner.cls = Command
        group.add_typer(family, name=name, cls=Family)
        return
    group.command(
        name, cls=Command, epilog=getattr(module, "EPILOG", None), short_help=entry.line,
        add_help_option=entry.has_help,
    )(unrolled(command))  # fmt: skip


def nothing() -> None:
    """In place of a command that is only listed."""
