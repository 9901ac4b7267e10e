"""The examples of docs/python.md do what they say, one after another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow  # they train
def test_examples_run() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) >= 3
    names: dict[str, Any] = {}
    for number, example in enumerate(examples, start=1):
        exec(compile(example, f"docs/python.md, example {number}", "exec"), names)
    assert names["outcome"].line.startswith("test accuracy: ")
