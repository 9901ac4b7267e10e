"""Dataclasses as options of the command line, and how its help shows them."""

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
    """Describe an option that may be left out.

    placeholder: stands for its value in the help; None for the name of its type.
    """
    return tyro.conf.arg(metavar=placeholder, help_behavior_hint=_hint)


def _hint(default: str) -> str:
    """Return how the help states a default; where it is nothing, the option's own text does."""
    return "" if default in ("None", "False", "''", "") else f"(default: {default})"


Switch = Annotated[bool, option()]
"""An option that is off unless its name is there."""


def parse(options: Any, words: Sequence[str], **others: Any) -> Any:
    """Return the options that `words` give; wrong ones end the program with status 2, as tyro does.

    options: a dataclass or a union of them. others: as tyro.cli takes them.
    """
    config = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(options, args=words, config=config, registry=_registry, **others)


@functools.cache
def texts(options: type) -> dict[str, str]:
    """Return the text under each field of a dataclass, by name, in one line."""
    import docstring_parser  # tyro's own

    described = docstring_parser.parse_from_object(options).params
    return {field.arg_name: " ".join((field.description or "").split()) for field in described}


_registry = ConstructorRegistry()


@_registry.struct_rule
def _dataclass_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Take a text as one paragraph; tyro 1.0 breaks it where its lines break."""
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
