"""A report or a data audit as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..audit.contents import Audit
from ..core.text import duration
from ..webpage import HOUSE, ICON
from . import charts
from .content import Copies, Report
from .markup import isolated, percent, prose, short, shortened
from .matrix import Matrix

_TEMPLATES = Path(__file__).parent / "templates"
_STYLES = (
    HOUSE,
    *(
        _TEMPLATES / f"{name}.css"
        for name in ("page", "tables", "charts", "pictures", "data", "print")
    ),
)
# The sections, by their key in Report.timings, and their headings.
SECTIONS = {
    "history": "How it learned",
    "more": "Would more photos help?",
    "time": "Where the time went",
    "confusion": "What it confuses",
    "classes": "Class by class",
    "examples": "Mistakes and close calls",
    "calibration": "Can its probabilities be trusted?",
    "suspects": "Labels to check",
    "data": "The data",
}


def render(report: Report) -> str:
    """Return the HTML of a report, with its styles, script and pictures inlined.

    Its content security policy allows no other script and no requests.
    """
    optional = {
        "more": report.more is not None,
        "examples": report.mistakes or report.hits,
        "suspects": report.suspects is not None,
        "data": report.audit,
    }
    pictures = [example.picture for example in (*report.mistakes, *report.hits)]
    pictures += [picture for pair in report.pairs for picture in pair.pictures]
    return _page(
        "report.html",
        report=report,
        elsewhere={name: spent for name, spent in report.timings.items() if name not in SECTIONS},
        sections=[name for name in SECTIONS if optional.get(name, True)],
        matrix=Matrix(report.confusion),
        maps=any(picture.overlay is not None for picture in pictures),
    )


def render_audit(audit: Audit, copies: Copies) -> str:
    """Return the HTML of a data audit, self-contained like that of `render`."""
    return _page("audit.html", audit=audit, copies=copies)


def _page(template: str, **content: object) -> str:
    style, script = _inline(*_STYLES), _inline(_TEMPLATES / "page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    return page.render(style=style, script=script, policy=policy, headings=SECTIONS, **content)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (data_url, duration, isolated, name, percent, prose, short, shortened)
    environment.filters.update({function.__name__: function for function in filters})
    environment.globals.update(charts=charts, icon=data_url(ICON.read_bytes(), "image/svg+xml"))
    return environment


def name(text: str, most: int = 48) -> Markup:
    """Return a name as a <bdi> element; a shortened one has its long form in a tooltip."""
    tooltip = Markup(' title="{}"').format(shortened(text, 300)) if len(text) > most else ""
    return Markup("<bdi{}>{}</bdi>").format(tooltip, shortened(text, most))


@cache
def _inline(*files: Path) -> Markup:
    """Return files for a <style> or <script> element, in which nothing is escaped."""
    texts = (file.read_text(encoding="utf-8") for file in files)
    return Markup("\n".join(texts))  # noqa: S704 - files of this package


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def data_url(data: bytes, kind: str) -> str:
    """Return a data: URL of a file of media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
