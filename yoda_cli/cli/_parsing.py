"""Commands of typer with what is ours: guesses, fewer checks, help in plain words."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

from yoda_cli.cli import _render
from yoda_cli.cli._signals import interruption
from yoda_cli.errors import INTERRUPTED, OutputError, UsageError
from yoda_cli.files.paths import is_there

LOADING = {"attention", "bench", "doctor", "metrics", "train"}  # torch, before their first word
SILENT = {"-h", "--help", "-q", "--quiet", "--no-progress"}


class Group(TyperGroup):
    """The commands; a picture in place of a command is met with what was meant."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _spared(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name not in self.commands and not name.startswith("-") and is_picture(name):
            raise UsageError(f"{name} is no command; did you mean: yoda upscale {name}")
        if name == "version":
            raise UsageError("version is no command; did you mean: yoda --version")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """The parser would end the process without a word at Ctrl-C, or where anything met a
        broken pipe."""
        words = {*ctx.args, *getattr(ctx, "_protected_args", ())}
        try:
            with _render.waiting("starting", quiet=not words & LOADING or bool(words & SILENT)):
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            _render.note(interruption(ctx.invoked_subcommand, *error.args))
            return INTERRUPTED
        except BrokenPipeError as error:
            raise OutputError("what should take or give data is gone: broken pipe") from error


PICTURE = re.compile(r"\.(png|jpe?g|webp|tiff?|bmp|gif|avif)$", re.IGNORECASE)


def is_picture(name: str) -> bool:
    """Whether a word looks like a picture or a folder of them."""
    return is_there(Path(name)) or PICTURE.search(name) is not None


class Command(TyperCommand):
    """A command whose options cost nothing where there is nothing to check: typer would make a
    checker for each, by a library that takes as long to load as all the rest."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _spared(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        if self.name != "upscale":  # that one loads much first
            gc.enable()
        return super().invoke(ctx)


class Family(TyperGroup):
    """Commands within a command, such as ``yoda weights list``."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _spared(super().get_params(ctx))


def _spared(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: ""  # its help says what it is
        elif parameter.metavar is None:
            parameter.metavar = _word_for(parameter)
        if not isinstance(parameter.process_value, partial):
            parameter.process_value = partial(_if_said, parameter, parameter.process_value)
    return parameters


def _word_for(parameter: Any) -> str:
    """What help shows for the value of an option: no name of a type of Python's."""
    if getattr(parameter, "is_flag", False):
        return " "
    kind: Any = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    return {Path: "FILE", list[Path]: "FILE", int: "N", float: "N"}.get(kind, "NAME")


def _if_said(parameter: Any, process: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    """A value without typer's checker where there is nothing to check: nothing was said, or a word
    or a file's name, or the number that stands in the signature."""
    if not value and parameter.required:
        return process(context, value)
    if value is None:
        if parameter.callback:
            return parameter.callback(context, parameter, None)
        return () if parameter.multiple or parameter.nargs != 1 else None
    if parameter.callback:
        return process(context, value)
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if kind is str and isinstance(value, str):
        return value
    if kind is int and type(value) is int and value == parameter.default:
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind == list[Path] and all(isinstance(each, str) for each in value):
        return [Path(each) for each in value]
    return process(context, value)
