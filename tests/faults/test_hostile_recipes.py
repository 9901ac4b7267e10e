"""A recipe of any wrong type, range or depth is one sentence that names the field."""

from __future__ import annotations

import dataclasses
import time
import typing
from pathlib import Path
from typing import Any, Literal

import pytest

from thawnet.core.errors import RecipeError
from thawnet.data.augment import Augment
from thawnet.recipe import MAX_FILE, Phase, Recipe, load_recipe, parse_recipe

HEAD = '[head]\ntrain_from = "head"\nepochs = 1\nlr = 0.001\n'
TAIL = '[finetune]\ntrain_from = "all"\nepochs = 1\nlr = 0.001\n'
WHOLE = f'name = "own"\n{HEAD}{TAIL}[augment]\n'

# TOML of each type; what is valid for a field is left out below.
VALUES = {
    str: '"text"',
    int: "3",
    float: "0.5",
    bool: "true",
    list: "[1, 2]",
    dict: "{a = 1}",
    type(None): "1979-05-27T07:32:00Z",  # TOML's own: a date
}


def fields() -> list[tuple[str, str, Any]]:
    """Return each field's table, name and type."""
    found = []
    for table, kind in (("", Recipe), ("head", Phase), ("finetune", Phase), ("augment", Augment)):
        hints = typing.get_type_hints(kind)
        found += [(table, each.name, hints[each.name]) for each in dataclasses.fields(kind)]
    return found


def with_field(table: str, name: str, value: str) -> str:
    """Return a recipe in which one field has this value."""
    lines = [line for line in WHOLE.splitlines() if line]
    own, kept = "", []
    for line in lines:
        if line.startswith("["):
            own = line.strip("[]")
        if own == table and line.startswith(f"{name} = "):
            continue
        kept.append(line)
    if not table:
        return "\n".join([f"{name} = {value}", *kept])
    at = kept.index(f"[{table}]") + 1
    return "\n".join([*kept[:at], f"{name} = {value}", *kept[at:]])


def refused(text: str) -> str:
    """Return the sentence that a recipe is refused with."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "mine.toml")
    told = str(caught.value)
    assert told.isprintable()
    assert len(told) <= 2100
    return told


@pytest.mark.parametrize(("table", "name", "hint"), fields())
def test_every_wrong_type_names_the_field(table: str, name: str, hint: Any) -> None:
    choice = typing.get_origin(hint) is Literal
    fits = {str} if choice else {hint, int} if hint is float else {hint}
    for kind, value in VALUES.items():
        if kind in fits and not choice:
            continue
        if dataclasses.is_dataclass(hint) and kind is dict:
            continue
        text = with_field(table, name, value)
        if dataclasses.is_dataclass(hint):
            text = text.replace(f"[{name}]", "[other]")
        told = refused(text)
        assert name in told or "other" in told


@pytest.mark.parametrize(("table", "name", "hint"), fields())
@pytest.mark.parametrize("value", ["-1", "99999999999999999999999", "1" + "0" * 400, "nan", "inf"])
def test_every_number_out_of_range_names_the_field(
    table: str, name: str, hint: Any, value: str
) -> None:
    if hint not in (int, float):
        return
    told = refused(with_field(table, name, value))
    assert f"{table}.{name}" if table else name in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = " + "9" * 5000, "not valid TOML (Exceeds the limit"),
        ("name = " + "[" * 5000, "not valid TOML"),
        (
            "name = " + "{a = " * 100 + "1" + "}" * 100,
            "'name' must be text in quotes; received dict",
        ),
        ("name." + "a." * 90 + "b = 1", "'name' must be text in quotes; received dict"),
        ("name." + "a." * 40_000 + "b = 1", "a line with over 100 dots; that is no recipe"),
        ('"a\\nb\\u001b[31m" = 1', "unknown field 'a?b?[31m'"),
        (f'"{"x" * 50_000}" = 1', "unknown field 'xxx"),
        (
            f'{WHOLE}rotate = "{"x" * 50_000}"',
            "'augment.rotate' must be a number; received str 'xxx",
        ),
        ('name = "own"\n[[head]]\nepochs = 1', "'head' must be a table"),
        ("name = 1979-13-45", "not valid TOML"),
        ("a = 1\na = 2", "not valid TOML"),
        ("\x00", "not valid TOML"),
    ],
)
def test_what_is_huge_deep_or_no_toml_is_a_short_sentence(text: str, told: str) -> None:
    started = time.process_time()
    assert told in refused(text)
    assert time.process_time() - started < 1


def test_file_that_is_no_recipe_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(RecipeError, match=r"more than 100,000 bytes; that is no recipe"):
        load_recipe(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(str(path))
