"""The pages' own scripts put one name on `window`, `thawnet`, which no browser has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import thawnet

ROOT = Path(thawnet.__file__).parent
MODULES = ("classifier.js",)  # declare nothing outside themselves, as all modules do
SCRIPTS = sorted(
    path
    for path in ROOT.rglob("*.js")
    if path.parent.name != "runtime" and path.name not in MODULES
)
# All of a script stands in one function, which may take our object: nothing is declared outside.
WHOLE = re.compile(
    r"(?://.*\n)+"
    r'"use strict";\n'
    r"\n"
    r"\(\(.*\) => \{\n"
    r"(?:  .*\n|\n)+"
    r"\}\)\((?:\(window\.thawnet \?\?= \{\}\)|self\.thawnet)?\);\n"
)
# Something that is put on the global object.
PUT = re.compile(
    r"\b(?:window|self|globalThis|top|parent|frames)(?:\.\w+|\[[^\]]*\])\s*[-+*/%&|^?<>]*=(?![=>])"
    r"|(?:assign|defineProperty|defineProperties)\((?:window|self|globalThis)\b(?!\.)"
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_puts_nothing_but_our_object_on_the_window(path: Path) -> None:
    script = path.read_text(encoding="utf-8")
    assert WHOLE.fullmatch(script)
    assert set(PUT.findall(script)) <= {"window.thawnet ??="}


def test_what_is_put_on_the_window_is_seen() -> None:
    for line in ("window.a = 1;", 'self["a"] ??= 1;', "Object.assign(window, { status });"):
        assert PUT.search(line)
    for line in ("if (window.thawnet === other) go();", "const { status } = window;"):
        assert not PUT.search(line)
