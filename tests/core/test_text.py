"""Text from outside: shown without its codes, cut where it is long, refused as a name."""

from __future__ import annotations

import pytest

from thawnet.core.errors import DataError, RunError
from thawnet.core.text import (
    LONGEST,
    MAX_NAME,
    csv_row,
    fault_of_name,
    from_cell,
    printable,
    sentence,
    shown,
    to_cell,
)


def test_terminal_codes_in_names_are_not_printed() -> None:
    assert printable("a\x1b[31m\nb\u202e\ud800") == "a?[31m?b??"
    assert printable("a\u2028b\u00a0c") == "a?b\u00a0c"
    assert printable("köttur 南瓜 🐈") == "köttur 南瓜 🐈"


def test_what_was_received_is_shown_short() -> None:
    for value in ("x\n" * 10**6, ["x"] * 10**6, {"a": {"b": [[[[[[1]]]]]]}}, 10**5000):
        assert len(shown(value)) < 500
        assert "\n" not in shown(value)


def test_deep_values_are_shown() -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    assert len(shown(deep)) < 500
    while isinstance(deep, list):  # or freeing it would go as deep
        deep = deep.pop()


@pytest.mark.parametrize(
    "name", ["", "cat", "<b>cat</b>", "a/b", "👩‍🚀", "x" * MAX_NAME, "שלום\u200f", "\u200eعربي"]
)
def test_names_are_names(name: str) -> None:
    assert fault_of_name(name) is None


@pytest.mark.parametrize("name", ["שלום", "שלום\u200f", "\u200eعربي"])
def test_names_written_from_the_right_are_names(name: str) -> None:
    assert fault_of_name(name) is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x" * (MAX_NAME + 1), "has 1,001 characters, over 1,000"),
        ("a\x1b[31mb", "class 'a?[31mb' has control or broken characters"),
        ("a\nb", "class 'a?b' has control"),
        ("\ud800", "class '?' has control or broken"),
        (
            "gpj.\u202etac",
            "class 'gpj.?tac' has the character U+202E in its name (shown as ?), whi",
        ),
        *((f"a{chr(code)}", f"U+{code:04X}") for code in (*range(0x202A, 0x202F), 0x2066, 0x2069)),
    ],
)
def test_codes_and_endless_names_are_told(name: str, told: str) -> None:
    assert told in str(fault_of_name(name))


def test_a_message_is_one_line_whose_ends_are_kept_where_it_is_long() -> None:
    told = str(DataError("begin\n" + "x" * 10**6 + "\x1b[2J: what to do"))
    assert told.startswith("begin?xxx")
    assert told.endswith("xxx?[2J: what to do")
    assert len(told) <= LONGEST
    assert sentence(told) == told
    assert str(RunError("as it is")) == "as it is"


@pytest.mark.parametrize(
    "text",
    ["=1+1", "@SUM(A1)", "\t=1", "\r=1", "+1+1", "-cat.jpg", "-", "'=1", "''-a", "'+'"],
)
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe_that_reading_takes_away(
    text: str,
) -> None:
    assert to_cell(text) == f"'{text}"
    assert from_cell(to_cell(text)) == text


@pytest.mark.parametrize(
    "text", ["", "cat", "-0.5", "+3", "-1e-05", "'tis", "'", "a=b", "'-1", "''"]
)
def test_other_text_is_a_cell_as_it_is(text: str) -> None:
    assert to_cell(text) == text
    assert from_cell(text) == text


def test_a_row_of_formulas_is_harmless() -> None:
    assert csv_row("=cmd|' /C calc'!A0", "cat", "-0.25") == "'=cmd|' /C calc'!A0,cat,-0.25"
