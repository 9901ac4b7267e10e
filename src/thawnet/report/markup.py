"""Formatting of names and figures for a page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ..core.text import for_page


def short(number: float) -> str:
    """Format a number with at most two decimals."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def shortened(text: str, most: int = 48) -> str:
    """Shorten text for a page to `most` characters by cutting the middle."""
    if len(text) > most:
        before = (most - 1) // 2
        text = f"{text[:before]}…{text[before + 1 - most :]}"
    return for_page(text)


def percent(share: float, digits: int = 1) -> str:
    """Format a share, 0 to 1, as a percentage."""
    return f"{100 * share:.{digits}f} %"


def isolated(text: str) -> str:
    """Isolate a right-to-left name in a tooltip, where <bdi> cannot be used."""
    return f"\u2068{text}\u2069" if _runs_left(text) else text


def prose(text: str, names: Iterable[str]) -> str:
    """Isolate right-to-left names in a sentence, so that they do not reorder its words."""
    inside = sorted((name for name in names if name in text and _runs_left(name)), key=len)
    pattern = "|".join(map(re.escape, reversed(inside)))
    return re.sub(pattern, lambda match: isolated(match[0]), text) if inside else text


def _runs_left(text: str) -> bool:
    return not text.isascii() and any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)
