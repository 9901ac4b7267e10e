"""Command-line options from dataclasses, and how the help shows them."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Section:
    """Annotates an option: it and those below it stand in a box of the help, '<name> options'."""

    name: str


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
    """Show sections, and the docstring of a field as one paragraph; tyro 1.0 keeps line breaks."""
    kind: type = info.type
    if not dataclasses.is_dataclass(kind) or kind.__module__.startswith("tyro."):
        return None
    given = vars(info.default) if isinstance(info.default, kind) else {}

    def instantiate(**values: Any) -> Any:
        flat: dict[str, Any] = {}
        for name, value in values.items():
            flat |= value if isinstance(value, _Members) else {name: value}
        return kind(**flat)

    instantiate.__doc__ = kind.__doc__  # the command's description
    return StructConstructorSpec(instantiate, tuple(_in_sections(_fields(kind, given))))


class _Members(dict[str, Any]):
    """The options of a section by name; `fields` describes them."""

    fields: tuple[StructFieldSpec, ...]


@_registry.struct_rule
def _section_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    if not (isinstance(info.type, type) and issubclass(info.type, _Members)):
        return None
    return StructConstructorSpec(info.type, info.type.fields)


def _fields(kind: type, given: dict[str, Any]) -> Iterator[StructFieldSpec]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        default = tyro.MISSING if field.default is dataclasses.MISSING else field.default
        yield StructFieldSpec(
            name=field.name,
            type=hints[field.name],
            default=given.get(field.name, default),
            helptext=functools.partial(lambda name: texts(kind).get(name), field.name),
        )


def _in_sections(fields: Iterable[StructFieldSpec]) -> Iterator[StructFieldSpec]:
    """Yield the fields above the first section, then a structure for each section."""
    sections: dict[str, list[StructFieldSpec]] = {}
    members = None
    for field in fields:
        for mark in getattr(field.type, "__metadata__", ()):
            if isinstance(mark, Section):
                members = sections.setdefault(mark.name, [])
        if members is None:
            yield field
        else:
            members.append(field)
    for name, inside in sections.items():
        kind: Any = type("Section", (_Members,), {"fields": tuple(inside)})
        flat: Any = Annotated[kind, tyro.conf.OmitArgPrefixes]
        yield StructFieldSpec(name, flat, tyro.MISSING, helptext="")
