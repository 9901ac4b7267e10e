"""Values from TOML, JSON or a call, checked against the annotations of a dataclass."""

from __future__ import annotations

import dataclasses
import types
import typing
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from .errors import ThawnetError, suggest
from .text import shown

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    bool: "true or false",
    Path: "a path",
}


def typed(hint: Any, value: Any, name: str = "", strict: bool = True) -> Any:
    """Convert a value to the type `hint`; a table becomes a dataclass.

    name: the field's name in errors. strict: refuse fields that a dataclass does not have.
    Raises ValueError with one sentence that names the field, what it must be and what was received,
    or the dataclass's own ThawnetError.
    """
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if types.NoneType in inner:
        return None if value is None else typed(inner[0], value, name, strict)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _from_table(hint, value, f"{name}." if name else "", strict)
    if origin is dict and isinstance(value, dict):
        return {key: typed(inner[1], item, f"{name}.{key}", strict) for key, item in value.items()}
    if origin is tuple and isinstance(value, list | tuple):
        hints = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(hints) == len(value):
            return tuple(typed(*pair, name, strict) for pair in zip(hints, value, strict=True))
    # Python callers pass paths for text, text for paths, and NumPy numbers.
    if hint in (Path, str) and isinstance(value, str | Path):
        return hint(value)
    # A bool is an int in Python, but not in a recipe.
    if hint is int and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if hint is float and isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    if hint is Any or type(value) is hint or (origin is Literal and value in inner):
        return value
    raise ValueError(
        f"'{name}' must be {_expected(hint, name)}; received {type(value).__name__} {shown(value)}"
    )


def plain(value: Any) -> Any:
    """Return a dataclass as JSON-able values, paths as text; `typed` reads it back."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _expected(hint: Any, name: str) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        return "a list" if inner[-1] is ... else f"{len(inner)} values"
    return _WORDS.get(hint, f"a table, as in [{name}]")


def _from_table(kind: Any, table: dict[str, Any], prefix: str, strict: bool) -> Any:
    hints = typing.get_type_hints(kind)
    for key in table:
        if strict and key not in hints:
            raise ValueError(f"unknown field '{prefix}{key[:100]}'; {suggest(key[:100], hints)}")
    values: dict[str, Any] = {}
    for item in dataclasses.fields(kind):
        if item.name in table:
            values[item.name] = typed(
                hints[item.name], table[item.name], prefix + item.name, strict
            )
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ValueError(f"field '{prefix}{item.name}' is missing")
    try:
        return kind(**values)
    except ThawnetError as error:
        raise type(error)(f"{prefix}{error}") from error
