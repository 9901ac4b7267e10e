"""A recipe of any wrong type, range or depth is one sentence that names the field."""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
import typing
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from thawnet.core.errors import RecipeError
from thawnet.data.augment import Augment
from thawnet.recipe import MAX_FILE, Phase, Recipe, load_recipe, parse_recipe, to_table

VALUES = ["text", 3, 0.5, True, [1, 2], {"a": 1}, datetime.date(1979, 5, 27)]


def fields() -> list[tuple[str, str, Any]]:
    """Return each field's table, '' at the top, its name and type."""
    kinds = {"": Recipe, "head": Phase, "finetune": Phase, "augment": Augment}
    return [
        (table, name, hint)
        for table, kind in kinds.items()
        for name, hint in typing.get_type_hints(kind).items()
    ]


def refused_with(table: str, name: str, value: Any) -> str:
    """Return the sentence for a recipe in which one field has this value."""
    recipe = to_table(load_recipe("quick"))
    (recipe[table] if table else recipe)[name] = value
    return refused(tomli_w.dumps(recipe))


def refused(text: str) -> str:
    """Return the sentence that a recipe is refused with."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "mine.toml")
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) <= 2100
    return sentence


@pytest.mark.parametrize(("table", "name", "hint"), fields())
def test_every_wrong_type_names_the_field(table: str, name: str, hint: Any) -> None:
    fitting = {float: (float, int), Phase: (), Augment: ()}.get(hint, (hint,))
    for value in VALUES:
        if type(value) in fitting or (dataclasses.is_dataclass(hint) and isinstance(value, dict)):
            continue
        assert name in refused_with(table, name, value)


@pytest.mark.parametrize(
    ("table", "name"), [(table, name) for table, name, hint in fields() if hint in (int, float)]
)
@pytest.mark.parametrize("value", [-1, 10**23 - 1, 10**400, math.nan, math.inf])
def test_every_number_out_of_range_names_the_field(table: str, name: str, value: float) -> None:
    assert (f"{table}.{name}" if table else name) in refused_with(table, name, value)


@pytest.mark.parametrize(
    ("text", "message"),
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
        ('name = "own"\n[[head]]\nepochs = 1', "'head' must be a table"),
        ("name = 1979-13-45", "not valid TOML"),
        ("a = 1\na = 2", "not valid TOML"),
        ("\x00", "not valid TOML"),
    ],
)
def test_what_is_huge_deep_or_no_toml_is_a_short_sentence(text: str, message: str) -> None:
    started = time.process_time()
    assert message in refused(text)
    assert time.process_time() - started < 1


def test_value_is_told_by_its_beginning() -> None:
    message = refused_with("augment", "rotate", "x" * 50_000)
    assert "'augment.rotate' must be a number; received str 'xxx" in message


def test_file_that_is_no_recipe_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(RecipeError, match=r"more than 100,000 bytes; that is no recipe"):
        load_recipe(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(str(path))
