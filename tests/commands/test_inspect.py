"""The command `inspect` as a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from thawnet.cli import main


def test_page_holds_the_data_alone_with_its_copies(
    photos: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 12, "<b>": 12})
    (folder / "<b>" / "copy.png").write_bytes((folder / "a" / "003.png").read_bytes())
    page = tmp_path / "data.html"
    assert main(["inspect", str(folder), "--html", str(page)]) == 0
    told = capsys.readouterr()
    assert "copy.png" in told.out
    assert f"page {page}" in told.err
    html = page.read_text(encoding="utf-8")
    assert "data:image/webp;base64," in html
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "How it learned" not in html
