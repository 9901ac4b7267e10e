"""The house: imports go one way, public names exist, starting is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import thawnet

ROOT = Path(thawnet.__file__).parent
ALLOWED = {
    "errors": {"text"},
    "text": set(),
    "deadline": set(),
    "console": {"errors", "text"},
    "files": {"errors"},
    "building": {"errors", "files"},
    "memory": set(),
    "packages": {"errors", "text"},
    "image": {"errors", "files", "deadline"},
    "data": {"errors", "files", "building", "deadline", "text", "image"},
    "model": {"errors", "files", "image", "data", "embedded"},
    "recipe": {"errors", "text", "data"},
    "classifier": {"errors", "console", "packages", "recipe", "data", "bundle", "training"},
    "inspection": {"errors", "console", "files", "packages", "data", "report", "picturing"},
    "evaluation": {"errors", "console", "bundle", "report", "measuring"},
    "measuring": {"errors", "packages", "data", "bundle", "report"},
    "prediction": {"errors", "console", "files", "memory", "image", "data", "bundle"},
    "diagnosis": {
        *("errors", "console", "files", "memory", "packages", "recipe", "text"),
        *("embedded", "data", "training"),
    },
    "exporting": {
        *("errors", "console", "files", "packages"),
        *("data", "bundle", "training", "serve", "browser"),
    },
    "browser": {"errors", "console", "image", "bundle", "serve", "style"},
    "picturing": {"errors", "image", "data", "report", "bundle"},
    "reporting": {"errors", "console", "packages", "bundle", "training"},
    "serving": {"errors", "console", "packages", "text", "image", "bundle", "serve"},
    "serve": {"errors", "text", "image", "bundle", "embedded", "style"},
    "report": {"errors", "files", "text", "style"},
    "bundle": {"errors", "files", "text", "memory", "image", "embedded"},
    "training": {
        *("errors", "console", "files", "building", "memory", "recipe", "text"),
        *("image", "data", "model", "report", "bundle", "embedded", "picturing"),
    },
    "recipes": set(),
    "embedded": set(),
    "style": set(),
}


def rooms_reached(path: Path) -> set[str]:
    """Return the rooms (top modules of thawnet) that a file imports from."""
    package = ("thawnet", *path.relative_to(ROOT).parts[:-1])
    reached: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            full = [*base, *(node.module.split(".") if node.module else [])]
            targets = [full] if len(full) > 1 else [[*full, alias.name] for alias in node.names]
            reached |= {target[1] for target in targets}
    return reached


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_go_one_way(room: str) -> None:
    files = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else (ROOT / room).rglob("*.py")
    for file in files:
        foreign = rooms_reached(file) - ALLOWED[room] - {room}
        assert not foreign, f"{file.relative_to(ROOT)} imports {foreign}"


def test_every_room_has_its_rule() -> None:
    rooms = {entry.stem for entry in ROOT.iterdir() if entry.suffix == ".py" or entry.is_dir()}
    assert rooms - {"__init__", "__main__", "__pycache__", "cli"} == set(ALLOWED)


def test_no_command_is_put_together_by_hand() -> None:
    """A path in it needs the shell's quotes: text.command_line knows them."""
    by_hand = re.compile(
        r"""thawnet (train --|(predict|evaluate|compare|export|report|serve) )[^"'`\n]*\{"""
        r"|--(resume|model|recipe|data) \{"
    )
    for file in ROOT.rglob("*.py"):
        assert not by_hand.search(file.read_text(encoding="utf-8")), file


def test_every_public_name_exists() -> None:
    assert sorted(thawnet.__all__) == thawnet.__all__
    for name in thawnet.__all__:
        assert getattr(thawnet, name).__doc__
    assert callable(thawnet.train)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = thawnet.nothing


def test_help_and_import_need_no_torch() -> None:
    code = "import sys, thawnet, thawnet.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
