"""Readable names for classes with cryptic ones, such as ImageNet's n01440764."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...core.errors import DataError
from ...core.text import counted
from ..items import Items, Source
from .csv_text import open_text
from .parts import check_names_differ

MAX_BYTES = 2**24
_SEPARATOR = re.compile(r"\s*([-=]>|[,;:=\s])\s*")


def with_class_names(source: Source, path: Path) -> Source:
    """Return a source with its classes renamed according to a file.

    The file has a line per class: its current name, a separator and the new name. Or it is JSON: an
    object of such pairs, or ImageNet's class index. Classes it does not list keep their names;
    classes with the same new name are merged. Raises DataError if it lists no class of the source.
    """
    given = _read(path, source.classes)
    if not given:
        raise DataError(
            f"--class-names '{path}' names none of the classes of '{source.name}', such as "
            f"'{source.classes[0]}'; expected lines as '{source.classes[0]} new name'"
        )
    new = [given.get(name, name) for name in source.classes]
    classes = tuple(sorted(set(new)))
    check_names_differ(classes, f"'{path}'")
    if len(classes) == 1:
        raise DataError(f"'{path}' gives every class the name '{classes[0]}'; keep two at least")
    position_of = {name: position for position, name in enumerate(classes)}
    positions = np.array([position_of[name] for name in new])

    def open_part(part: str) -> Items:
        items = source.open_part(part)
        return replace(items, labels=positions[items.labels])

    superclasses = source.superclasses and {
        given.get(name, name): group for name, group in source.superclasses.items()
    }
    return replace(
        source,
        classes=classes,
        open_part=open_part,
        superclasses=superclasses,
        notes=(*source.notes, *_notes(path, source.classes, given, classes)),
    )


def _notes(
    path: Path, old: tuple[str, ...], given: dict[str, str], new: tuple[str, ...]
) -> Iterator[str]:
    kept = [name for name in old if name not in given]
    if kept:
        yield f"'{path.name}' has no name for {counted(len(kept), 'class')}, as '{kept[0]}'"
    if len(new) < len(old):
        yield f"'{path.name}' makes {len(old):,} classes {len(new):,}: some share a name"


def _read(path: Path, classes: tuple[str, ...]) -> dict[str, str]:
    """Return the new names of classes, keyed by their current ones."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"--class-names '{path}' holds more than {MAX_BYTES:,} bytes")
        text = path.read_text(encoding=open_text(path).encoding)
        pairs = _from_json(text) if text.lstrip().startswith("{") else _from_lines(text, classes)
        named: dict[str, str] = {}
        for old, new in pairs:
            name = unicodedata.normalize("NFC", new.strip())
            if old in classes and named.setdefault(old, name) != name:
                raise DataError(f"--class-names '{path}' gives '{old}' two names; keep one")
    except OSError as error:
        raise DataError(f"--class-names '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"--class-names '{path}' is neither lines of text, as 'n01440764 tench', nor a JSON "
            "object of such pairs"
        ) from error
    return {old: named[old] for old in classes if named.get(old)}


def _from_json(text: str) -> Iterator[tuple[str, str]]:
    for key, value in json.loads(text).items():
        # ImageNet's class index: {"0": ["n01440764", "tench"]}
        old, new = value if isinstance(value, list) else (key, value)
        yield old, new


def _from_lines(text: str, classes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    known = set(classes)
    for line in text.splitlines():
        # A class name may contain separators: take the longest that the line begins with.
        for end in reversed(list(_SEPARATOR.finditer(line))):
            old = line[: end.start()].strip('"')
            if old in known:
                yield old, line[end.end() :].strip().strip('"')
                break
