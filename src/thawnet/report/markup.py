"""Names and figures as they stand in a page."""

from __future__ import annotations

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
