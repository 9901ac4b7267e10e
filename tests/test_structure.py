"""The house: public names exist, starting is light, commands are quoted in one place."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import thawnet
from thawnet.export.page.page import RUNTIME
from thawnet.training.run_folder import Outcome

ROOT = Path(thawnet.__file__).parent


def test_no_command_is_put_together_by_hand() -> None:
    """A path in it needs the shell's quotes: text.command_line knows them."""
    by_hand = re.compile(
        r"""thawnet (train --|(predict|evaluate|compare|export|report|serve) )[^"'`\n]*\{"""
        r"|--(resume|model|recipe|data) \{"
    )
    for file in ROOT.rglob("*.py"):
        assert not by_hand.search(file.read_text(encoding="utf-8")), file


def test_every_path_that_is_written_down_exists() -> None:
    checkout = ROOT.parents[1]
    places = [checkout, *(checkout / name for name in ("docs", "tools", "benchmarks", "tests"))]
    texts = [path for place in places for path in place.glob("*") if path.is_file()]
    assert {path.name for path in texts} >= {"NOTICE", "README.md", "vendor_ort.py"}
    for path in texts:
        if path.suffix in ("", ".md", ".py", ".toml"):
            for named in re.findall(r"src/thawnet/[\w./-]*\w", path.read_text(encoding="utf-8")):
                assert (checkout / named).exists(), f"{path.name}: {named}"


def test_runtimes_are_brought_to_where_the_page_takes_them_from() -> None:
    name = ROOT.parents[1] / "tools" / "vendor_ort.py"
    spec = importlib.util.spec_from_file_location("vendor_ort", name)
    assert spec
    assert spec.loader
    vendor = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(vendor)
    assert vendor.FOLDER == RUNTIME


def test_tab_lists_the_public_names() -> None:
    assert [name for name in dir(thawnet) if not name.startswith("_")] == thawnet.__all__


def test_models_and_outcomes_show_themselves_in_two_lines(finished: Outcome) -> None:
    assert repr(thawnet.load()).splitlines() == [
        "<thawnet model embedded: mobilenetv2_100, 100 classes, 96 px",
        "  apple, aquarium_fish, baby, bear, ...>",
    ]
    assert repr(finished).splitlines() == [
        f"<thawnet run {finished.folder}",
        f"  {finished.line}>",
    ]


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
