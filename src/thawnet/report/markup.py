"""Elements of HTML and SVG as text, and how names and figures stand in them."""

from __future__ import annotations

from markupsafe import Markup, escape

from ..core.text import for_page


def element(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element; children and the values of attributes are escaped unless they are Markup.

    Of an attribute's name a last underscore goes and others become dashes: class_, text_anchor.
    Fractions are rounded to a hundredth. An attribute that is None is left out.
    """
    shown = [
        Markup(' {}="{}"').format(key.removesuffix("_").replace("_", "-"), _short_number(value))
        for key, value in attributes.items()
        if value is not None
    ]
    start = Markup("<") + name + Markup("").join(shown)
    if not children:
        return start + Markup("/>")
    return start + Markup(">") + joined(*children) + Markup("</") + name + Markup(">")


def joined(*parts: object) -> Markup:
    """Return the parts one after another, escaped unless they are Markup."""
    return Markup("").join(escape(part) for part in parts)


def _short_number(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def shortened(text: str, most: int = 48) -> str:
    """Return text for a page of at most `most` characters; what is left out is in the middle."""
    if len(text) > most:
        before = (most - 1) // 2
        text = f"{text[:before]}…{text[before + 1 - most :]}"
    return for_page(text)


def percent(share: float, digits: int = 1) -> str:
    """Return a share, 0 to 1, as a percentage."""
    return f"{100 * share:.{digits}f} %"
