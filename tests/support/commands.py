"""Commands called in this process, and code run in another."""

from __future__ import annotations

import ast
import inspect
import itertools
import subprocess
import sys
from collections.abc import Sequence

import pytest

from thawnet import cli

_REFUSING = """
import sys

lacking = sys.argv.pop(1).split(",")

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in lacking:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Refuse())
"""


def called(capture: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Call `thawnet` with these words; return its exit status, stdout and stderr."""
    status = cli.main([str(word) for word in words])
    out, err = capture.readouterr()
    return status, out, err


def helps_of(options: type) -> dict[str, str]:
    """Return the text behind each field of a class of options, by name; '' where there is none."""
    (tree,) = ast.parse(inspect.getsource(options)).body
    assert isinstance(tree, ast.ClassDef)
    helps = {}
    for field, text in itertools.zip_longest(tree.body, tree.body[1:]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            there = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            helps[field.target.id] = str(text.value.value) if there else ""
    return helps


def run_without(
    packages: Sequence[str], code: str, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """Run Python code, which finds the arguments in sys.argv[1:], as if packages were missing."""
    command = [sys.executable, "-c", _REFUSING + code, ",".join(packages), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
