"""Names and figures as they stand in a page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ..core.text import for_page


def short(number: float) -> str:
    """Return a number rounded to a hundredth, in few characters."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def shortened(text: str, most: int = 48) -> str:
    """Return text for a page of at most `most` characters; what is left out is in the middle."""
    if len(text) > most:
        before = (most - 1) // 2
        text = f"{text[:before]}…{text[before + 1 - most :]}"
    return for_page(text)


def percent(share: float, digits: int = 1) -> str:
    """Return a share, 0 to 1, as a percentage."""
    return f"{100 * share:.{digits}f} %"


def isolated(text: str) -> str:
    """Return a name for a tooltip, where no <bdi> can be: Hebrew and Arabic ones swap no places."""
    return f"\u2068{text}\u2069" if _runs_left(text) else text


def prose(text: str, names: Iterable[str]) -> str:
    """Return a sentence in which Hebrew and Arabic ones of these names swap no places."""
    inside = sorted((name for name in names if name in text and _runs_left(name)), key=len)
    pattern = "|".join(map(re.escape, reversed(inside)))
    return re.sub(pattern, lambda match: isolated(match[0]), text) if inside else text


def _runs_left(text: str) -> bool:
    return not text.isascii() and any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)
