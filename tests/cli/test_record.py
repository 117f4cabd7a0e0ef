"""Commands that take a record: what typer is given, and what the command gets."""

from inspect import Parameter, signature
from typing import Annotated, NamedTuple

import pytest
import typer

from yoda_cli.cli._record import unrolled

Size = Annotated[int, typer.Option("--size", help="How large.")]


class Group(NamedTuple):
    size: Size = 3
    name: Annotated[str | None, typer.Option(help="A name.")] = None


class Twice(NamedTuple):
    size: Size = 1
    group: Group = Group()


class Record(NamedTuple):
    picture: Annotated[str, typer.Argument()]
    group: Group = Group()
    fast: Annotated[bool, typer.Option("--fast")] = False


def command(args: Record) -> tuple[int, Record]:
    """What it does."""
    return 7, args


def test_a_group_stands_in_its_place_with_its_defaults():
    made = unrolled(command)
    parameters = signature(made).parameters
    assert list(parameters) == ["picture", "size", "name", "fast"]
    assert [p.default for p in parameters.values()] == [Parameter.empty, 3, None, False]
    assert parameters["size"].annotation == Size
    assert (made.__doc__, made.__name__) == ("What it does.", "command")


def test_the_command_gets_the_record_filled():
    done = unrolled(command)(picture="a", size=4, name="b", fast=True)
    assert done == (7, Record("a", Group(4, "b"), True))


def test_typer_reads_the_options():
    app = typer.Typer()
    app.command()(unrolled(command))
    assert app(["a", "--size", "5", "--fast"], standalone_mode=False) == (
        7, Record("a", Group(5, None), True)
    )  # fmt: skip


def test_a_command_of_single_parameters_stays_as_it_is():
    def plain(size: Size = 1) -> int:
        return size

    assert unrolled(plain) is plain


def test_two_options_of_one_name_are_refused():
    def both(args: Twice) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name"):
        unrolled(both)
