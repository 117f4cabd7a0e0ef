"""Defaults of options from a file of the user's and from ``YODA_*``, as ``default_map`` has them.

A key is an option's long name. In the file it stands at the top, for every command that has such
an option, or in a table named after one command. ``YODA_MODEL=face`` is what ``model = "face"`` at
the top is, and goes before it. The command line goes before both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from yoda_cli.errors import UsageError
from yoda_cli.files import read_small
from yoda_cli.files.paths import is_there

#: Read where they are needed, by code that the command line is not part of.
ELSEWHERE = {"YODA_OFFLINE", "YODA_CACHE_DIR", "YODA_REGISTRY", "YODA_CONFIG", "YODA_SLOW_SECONDS"}
#: What no default may decide: the options that end a command, and those read elsewhere.
NEVER = {"help", "help_all", "version", "debug", "offline", "cache_dir", "registry"}


def config_path() -> Path:
    """The file, whether it exists or not: ``YODA_CONFIG``, or the platform's place for it."""
    if named := os.environ.get("YODA_CONFIG"):
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_config_dir("yoda")) / "config.toml"


def is_written() -> bool:
    """Whether there is such a file."""
    try:
        return is_there(config_path())
    except (ImportError, OSError, ValueError):
        return True


def default_map(group: Any) -> dict[str, Any]:
    """Defaults by command and option. Raises UsageError for a key that no command knows."""
    return settle(group, read_config(), from_environment(os.environ))


def read_config() -> dict[str, Any]:
    """The file as tables; empty where there is none."""
    try:
        path = config_path()
    except ImportError:  # a machine that only trains need not have platformdirs
        return {}
    try:
        text = read_small(path)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        # HOME may be another user's, as ``sudo -E`` leaves it, or no folder: nothing is there then
        if not os.environ.get("YODA_CONFIG") and not is_there(path):
            return {}
        raise UsageError(f"{path} cannot be read: {error}") from error
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: tables within tables, too deep to be meant") from error


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``YODA_…`` variables as options' names."""
    return {
        name.removeprefix("YODA_").lower(): value
        for name, value in environment.items()
        if name.startswith("YODA_") and name not in ELSEWHERE and value
    }


def nearest(name: str, known: Iterable[str]) -> str:
    """What was meant; the tables of names are loaded for a mistake only."""
    from yoda_cli.cli import _names

    return _names.nearest(name, known)


def settle(
    group: Any, written: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    """``default_map`` of a group of commands."""
    commands = group.commands
    tables = {key: value for key, value in written.items() if isinstance(value, dict)}
    common = {option_of(key): value for key, value in written.items() if key not in tables}
    known = {name for command in commands.values() for name in options_of(command)}
    for key in common:
        if key not in known:
            raise UsageError(f"{config_path()}: no option {key!r}; {nearest(key, known)}")
    for name in tables:
        if name not in commands:
            raise UsageError(f"{config_path()}: no command {name!r}; "
                             f"{nearest(name, commands)}")  # fmt: skip
    return {
        name: of_command(name, command, tables.get(name, {}), {**common, **environment})
        for name, command in commands.items()
    }


def of_command(
    name: str, command: Any, table: Mapping[str, Any], common: Mapping[str, Any]
) -> dict[str, Any]:
    """A command's defaults: those for all commands, then its own."""
    if not isinstance(table, dict):
        raise UsageError(f"{config_path()}: {name} is a command; give it a table, [{name}]")
    if hasattr(command, "commands"):
        return {
            key: of_command(f"{name} {key}", sub, table.get(key, {}), common)
            for key, sub in command.commands.items()
        }
    own = {option_of(key): value for key, value in table.items()}
    options = options_of(command)
    for key in own:
        if key not in options:
            raise UsageError(
                f"{config_path()}: yoda {name} has no option {key!r}; {nearest(key, options)}"
            )
    found = {key: value for key, value in common.items() if key in options} | own
    return {options[key]: as_typed(value) for key, value in found.items()}


def options_of(command: Any) -> dict[str, str]:
    """The long names of a command's options, and the parameter behind each."""
    return {
        option_of(flag): parameter.name
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name not in NEVER
        for flag in parameter.opts
        if flag.startswith("--") and not (parameter.name or "").startswith("alias_")
    }


def option_of(key: str) -> str:
    """``--short-side`` and ``short-side`` are ``short_side``."""
    return key.removeprefix("--").replace("-", "_")


def as_typed(value: Any) -> Any:
    """A value as if it were typed: numbers as text, which the option reads."""
    if isinstance(value, bool):
        return value
    return [str(one) for one in value] if isinstance(value, list) else str(value)
