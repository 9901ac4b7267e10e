"""The house: public names exist, starting is light, commands are quoted in one place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import thawnet

ROOT = Path(thawnet.__file__).parent


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
