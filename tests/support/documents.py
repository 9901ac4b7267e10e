"""The repository's own documents, and the blocks of code in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# For the reader of a page, and each with blocks.
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
_FENCED = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```", re.S | re.M
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    code: str
    mark: str
    """The comment in the line before it: 'run', 'seen: COMMAND' or 'not run: REASON', or ''."""


def read_document(path: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(path: str) -> list[Block]:
    """Return the blocks of a Markdown file."""
    found = _FENCED.finditer(read_document(path))
    return [Block(each["language"], each["code"], each["mark"] or "") for each in found]


def only_block(path: str, language: str) -> str:
    """Return the one block in a language of a Markdown file."""
    (block,) = (block for block in blocks(path) if block.language == language)
    return block.code
