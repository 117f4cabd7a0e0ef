"""Commands that take one record, given a parameter for each option: typer reads signatures.

A record is a ``NamedTuple`` with a field for each option: ``Annotated[type, typer.Option(…)]``, and
the default. A field whose type is a record itself is a group: its own fields stand in its place. No
two fields of a record and its groups have one name.

(A frozen dataclass takes ten times as long to make, and the command line makes them at each start.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from inspect import Parameter, Signature
from typing import Any, get_type_hints


def unrolled(command: Callable[..., Any]) -> Callable[..., Any]:
    """``command`` with a parameter for each option; as it is where it takes no record."""
    hints = [hint for name, hint in get_type_hints(command).items() if name != "return"]
    if len(hints) != 1 or not is_record(hints[0]):
        return command
    (record,) = hints

    @wraps(command)
    def taking_options(**values: Any) -> Any:
        return command(filled(record, values))

    parameters = list(parameters_of(record))
    taking_options.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    taking_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return taking_options


def is_record(kind: Any) -> bool:
    """Whether a type is a NamedTuple."""
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def parameters_of(record: Any) -> Iterator[Parameter]:
    """A keyword for each field, and for each of its groups', in their order."""
    for name, kind in get_type_hints(record, include_extras=True).items():
        if is_record(kind):
            yield from parameters_of(kind)
        else:
            default = record._field_defaults.get(name, Parameter.empty)
            yield Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def filled(record: Any, values: Mapping[str, Any]) -> Any:
    """A record and its groups, from a value for each of their options."""
    kinds = get_type_hints(record)
    return record(
        **{
            name: filled(kind, values) if is_record(kind) else values[name]
            for name, kind in kinds.items()
        }
    )
