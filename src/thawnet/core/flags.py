"""Command-line options from dataclasses, and how the help shows them."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)


def option(placeholder: str | None = None) -> Any:
    """Annotate an optional command-line option.

    placeholder: stands for its value in the help; None shows the name of its type.
    """
    return tyro.conf.arg(metavar=placeholder, help_behavior_hint=_hint)


def _hint(default: str) -> str:
    """Return the help's note of a default; the option's own text explains an empty default."""
    return "" if default in ("None", "False", "''", "") else f"(default: {default})"


Switch = Annotated[bool, option()]
"""A flag that is off unless it is given."""


def parse(options: Any, words: Sequence[str], **others: Any) -> Any:
    """Parse `words` into options; if they are invalid, tyro exits with status 2.

    options: a dataclass or a union of them. others: passed on to tyro.cli.
    """
    config = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(options, args=words, config=config, registry=_registry, **others)


@functools.cache
def texts(options: type) -> dict[str, str]:
    """Return the docstring of each field of a dataclass as one line, by field name."""
    import docstring_parser  # tyro's own

    described = docstring_parser.parse_from_object(options).params
    return {field.arg_name: " ".join((field.description or "").split()) for field in described}


_registry = ConstructorRegistry()


@_registry.struct_rule
def _dataclass_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Show the docstring of a field as one paragraph; tyro 1.0 keeps its line breaks."""
    kind: type = info.type
    own = getattr(kind, "__dataclass_fields__", None)
    if own is None or kind.__module__.startswith("tyro."):
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    given = vars(info.default) if isinstance(info.default, kind) else {}
    return StructConstructorSpec(
        instantiate=kind,
        fields=tuple(
            StructFieldSpec(
                name=name,
                type=hints[name],
                default=given.get(name, _default(field)),
                helptext=functools.partial(lambda name: texts(kind).get(name), name),
            )
            for name, field in own.items()
        ),
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    return tyro.MISSING if field.default is dataclasses.MISSING else field.default
