"""The pages' own scripts put one name on `window`, `thawnet`, which no browser has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import thawnet

ROOT = Path(thawnet.__file__).parent
SCRIPTS = sorted(path for path in ROOT.rglob("*.js") if path.parent.name != "runtime")
# All of a script stands in one function, which may take our object: nothing is declared outside.
WHOLE = re.compile(
    r"(?://.*\n)+"
    r'"use strict";\n'
    r"\n"
    r"\(\(.*\) => \{\n"
    r"(?:  .*\n|\n)+"
    r"\}\)\((?:\(window\.thawnet \?\?= \{\}\)|self\.thawnet)?\);\n"
)
GLOBAL = r"\b(?:window|self|globalThis|top|parent|frames)\b"
PUT = re.compile(
    rf"{GLOBAL}(?:\.\w+|\[[^\]]*\])\s*(?:[-+*/%&|^?]|\*\*|&&|\|\||\?\?|<<|>>>?)?=(?![=>])"
    rf"|(?:assign|defineProperty|defineProperties|set)\({GLOBAL}(?!\.)"
)


def names_put(script: str) -> list[str]:
    """Return the places where a script puts something on the global object."""
    return PUT.findall(script)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_puts_nothing_but_our_object_on_the_window(path: Path) -> None:
    script = path.read_text(encoding="utf-8")
    assert WHOLE.fullmatch(script)
    assert set(names_put(script)) <= {"window.thawnet ??="}


@pytest.mark.parametrize(
    "line",
    [
        "window.orientation = async (file) => {",
        'self["name"] = 1;',
        "globalThis.status ??= 1;",
        "Object.assign(window, { status });",
        'Object.defineProperty(self, "status", {});',
    ],
)
def test_name_put_on_the_window_is_seen(line: str) -> None:
    assert names_put(line)


@pytest.mark.parametrize(
    "line",
    ["if (window.thawnet === other) go();", "const { status } = window;", "self.clients.claim();"],
)
def test_name_read_is_none_that_is_put(line: str) -> None:
    assert not names_put(line)
