"""The command `inspect`: audit a data set, as text, JSON or a web page."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..core import console
from ..core.columns import aligned
from ..core.errors import UsageError
from ..core.files import write_text
from ..core.flags import Switch, option
from ..core.packages import require_installed
from ..core.text import counted
from ..data.reading import AS_IT_IS, Reading

if TYPE_CHECKING:
    from ..audit.contents import Audit, Group, Member, Part

ALL_CLASSES = 12  # if there are more, only the smallest and largest are listed
EXTREMES = 5
GROUPS = 10


@dataclass(frozen=True)
class InspectOptions:
    """Check a data set before training, and say what to fix.

    Looks for damaged files, copies, images that are in both train and test, and small or uneven
    classes. Nothing is changed. The exit status is 0 whatever is found, and 1 if DATA cannot be
    opened.
    """

    data: Annotated[str, tyro.conf.Positional, option("[DATA]")] = "cifar100"
    """A data set, in any form that `thawnet train` takes."""
    data_dir: Annotated[Path | None, option("FOLDER")] = None
    """For cifar10 and cifar100: the folder that holds the data. Default: download it."""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = AS_IT_IS
    """How DATA is read, as for `train`."""
    size: Annotated[int, option("PIXELS")] = 96
    """Side of the network's input: images with a shorter side are counted as small."""
    json: Switch = False
    """Print everything as one JSON object, with the names of all images concerned."""
    html: Annotated[Path | None, option("FILE")] = None
    """Also write a web page that shows the copies."""


def inspect(options: InspectOptions) -> None:
    """Audit DATA with progress bars and print the report on stdout."""
    from ..audit.audit import audit
    from ..data.sources.open import open_source

    if options.size < 1:
        raise UsageError(f"--size {options.size}: must be at least 1")
    if options.html is not None:
        require_installed("--html", ("jinja2",))
    source = open_source(
        options.data, options.data_dir, tell=console.say, asked=options.reading
    ).opened_once()
    if "test" in source.parts:
        console.say("the test part's images are looked at for duplicates and damage only")
    audited = audit(source, options.size, console.progress)
    if options.html is not None:
        from ..report.page import render_audit
        from ..report.pictures import copies_of

        write_text(options.html, render_audit(audited, copies_of(audited, source)))
        console.say(f"page {options.html}: open it in a browser")
    if options.json:
        console.result(json.dumps(audited.as_dict(), indent=2, ensure_ascii=False))
        return
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    for line in report(audited, width):
        console.result(line)


def report(audit: Audit, width: int) -> Iterator[str]:
    """Yield the lines of the report, wrapped at `width` columns except for file names."""
    images = sum(part.images for part in audit.parts)
    yield f"{audit.name}: {counted(images, 'image')} in {counted(len(audit.classes), 'class')}"
    yield ""
    yield from _table(audit)
    yield ""
    yield from _classes(audit.parts[0], width)
    yield ""
    yield from _findings(audit, width)
    if audit.notes:
        yield ""
        yield "How it was read"
    for note in audit.notes:
        yield from _wrapped("  - ", f"{note}.", width)
    if audit.groups:
        yield ""
        yield from _groups(audit)


def _table(audit: Audit) -> Iterator[str]:
    rows = [("part", "images", "per class", "MB", "width", "height", "stored as")]
    for part in audit.parts:
        counts = sorted(part.counts.values())
        kinds = [_share(*kind, part) for kind in (*part.formats.items(), *part.modes.items())]
        if part.turned:
            kinds.append(f"{part.turned:,} turned by EXIF")
        rows.append(
            (
                part.name,
                f"{part.images:,}",
                _range(counts[0], counts[len(counts) // 2], counts[-1]),
                f"{part.stored_bytes / 1e6:,.1f}",
                _range(*part.width),
                _range(*part.height),
                ", ".join(kinds),
            )
        )
    numbers = aligned([row[:-1] for row in rows], numbers=True, first=0)
    yield from (f"{line}  {row[-1]}" for line, row in zip(numbers, rows, strict=True))
    yield "(per class, width and height: smallest / median / largest)"
    for name, count in audit.split_off.items():
        yield f"{name}: none; thawnet train splits it off train ({counted(count, 'image')})"
    if audit.folded:
        yield "few photos: thawnet train learns from all of them and cross-validates its accuracy"


def _share(name: str, number: int, part: Part) -> str:
    total = sum(part.counts.values())
    return name if number == total else f"{name} {100 * number / total:.0f} %"


def _range(least: int, middle: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} / {middle:,} / {most:,}"


def _classes(train: Part, width: int) -> Iterator[str]:
    ordered = sorted(train.counts.items(), key=lambda item: (item[1], item[0]))
    classes = [f"{name} {count:,}" for name, count in ordered]
    if len(classes) <= ALL_CLASSES:
        yield from _wrapped("train: ", ", ".join(reversed(classes)), width)
    elif ordered[0][1] == ordered[-1][1]:
        yield f"train: {ordered[0][1]:,} images of every class"
    else:
        yield from _wrapped("smallest classes: ", ", ".join(classes[:EXTREMES]), width)
        yield from _wrapped("largest classes:  ", ", ".join(reversed(classes[-EXTREMES:])), width)


def _findings(audit: Audit, width: int) -> Iterator[str]:
    if not audit.findings:
        yield "Nothing to do: no damage, no copies, no class too small."
        return
    yield "What to do, most important first"
    for number, finding in enumerate(audit.findings, start=1):
        yield from _wrapped(f"{number:>2}. ", finding.what, width)
        yield from _wrapped("    -> ", finding.todo, width)


def _wrapped(start: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _groups(audit: Audit) -> Iterator[str]:
    count = len(audit.groups)
    rest = "" if count <= GROUPS else f", {GROUPS} of {count:,}; --json lists all"
    yield f"Copies, worst first{rest}"
    for group in audit.groups[:GROUPS]:
        yield f"  {_kind(group):<14}{' = '.join(map(_named, group.pictures))}"


def _kind(group: Group) -> str:
    if group.exact:
        return "exact"
    return f"{'mirrored' if group.mirrored else 'nearly'} {group.similarity:.2f}"


def _named(picture: Member) -> str:
    """Return an image's name, with its class added unless a folder in the name says it."""
    words = picture.name.split("/")
    label = "" if picture.label in words else f" ({picture.label})"
    return f"{picture.name}{label}"
