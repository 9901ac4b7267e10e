"""Findings of an audit in plain words, and what to do about each, most important first."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from ..core.text import counted
from ..image.heic import INSTALL, LACKING
from .contents import Audit, Finding, Part
from .duplicates import LEAST_SIDE

FEW = 20  # images of a class; with fewer, validation gets a quarter of them instead of a tenth
NONE_HELD_BACK = 3  # images of a class; with fewer, none is held back for validation
UNEVEN = 3.0  # images of the largest class / of the smallest
COARSE = 5.0  # percentage points; an accuracy that is less certain is reported
_SHOWN = 3


def judge(audit: Audit) -> Iterator[Finding]:
    """Yield the findings, most important first."""
    train = audit.parts[0]
    for reason in audit.unusable:
        yield Finding(
            "unusable-part",
            f"{reason[0].upper()}{reason[1:]}.",
            "Training refuses the data as it is; a faulty test part alone can be left out with "
            "--no-test.",
        )
    for part in reversed(audit.parts[1:]):
        yield from _leaks(audit, part)
    yield from _conflicts(audit)
    yield from _broken(audit)
    for part in audit.parts[1:]:
        yield from _missing(part)
    yield from _few(train, audit.folded)
    yield from _uneven(train)
    yield from _copies(audit)
    yield from _coarse(audit)
    yield from _plain(audit)
    yield from _animated(audit)
    yield from _small(audit)
    yield from _cut(audit)
    yield from _deep(audit)


def _leaks(audit: Audit, part: Part) -> Iterator[Finding]:
    leaked, exact, conflicting = set[str](), set[str](), set[str]()
    sources = set[str]()
    for group in audit.groups:
        earlier = {picture.part for picture in group.pictures}
        earlier &= {"train"} if part.name == "val" else {"train", "val"}
        mine = [picture for picture in group.pictures if picture.part == part.name]
        if not mine or not earlier:
            continue
        sources |= earlier
        for picture in mine:
            others = {other.label for other in group.pictures if other.part in earlier}
            leaked.add(picture.name)
            if group.exact:
                exact.add(picture.name)
            if others != {picture.label}:
                conflicting.add(picture.name)
    if not leaked:
        return
    share = f"{100 * len(leaked) / part.images:.1f}".removesuffix(".0")
    where = " or ".join(sorted(sources))
    yield Finding(
        f"{part.name}-leak",
        f"{counted(len(leaked), f'{part.name} image')} of {part.images:,} ({share} %) "
        f"{_are(len(leaked))} in {where} too: {_kinds(len(exact), len(leaked))}; "
        f"{len(conflicting):,} under another class.",
        f"Take the copies out of {where}. If the split is published and must stay, say so "
        f"beside the accuracy: they can move it by {share} points at most.",
    )


def _conflicts(audit: Audit) -> Iterator[Finding]:
    groups = [group for group in audit.groups if group.scope == "classes"]
    if groups:
        exact = sum(group.exact for group in groups)
        yield Finding(
            "label-conflict",
            f"{counted(len(groups), 'picture')} {_are(len(groups))} filed under more than one "
            f"class: {_kinds(exact, len(groups))}.",
            "Look at each, keep it under the right class and delete it from the others.",
        )


def _broken(audit: Audit) -> Iterator[Finding]:
    pairs = [pair for part in audit.parts for pair in part.broken]
    lacking = [name for name, reason in pairs if reason.startswith(LACKING)]
    if lacking:
        yield Finding(
            "needs-a-package",
            f"{counted(len(lacking), 'image')} {_are(len(lacking))} HEIC, which is not read here: "
            f"{_some(lacking)}.",
            f"{INSTALL}; until then training leaves them out.",
        )
    broken = [f"{name} ({reason})" for name, reason in pairs if not reason.startswith(LACKING)]
    if broken:
        yield Finding(
            "broken",
            f"{counted(len(broken), 'image')} cannot be read: {_some(broken)}.",
            "Replace or delete them; training leaves them out.",
        )


def _missing(part: Part) -> Iterator[Finding]:
    empty = [name for name, count in part.counts.items() if count == 0]
    if empty:
        yield Finding(
            f"{part.name}-misses-classes",
            f"The {part.name} part has no image of {_some(empty)}.",
            f"Move some there; until then nothing is known about {_these(len(empty), 'class')}.",
        )


def _few(train: Part, folded: bool) -> Iterator[Finding]:
    few = sorted((count, name) for name, count in train.counts.items() if count < FEW)
    if few:
        none = 0 if folded else sum(count < NONE_HELD_BACK for count, _ in few)
        extra = (
            f" {none:,} of them under {NONE_HELD_BACK}, too few to hold any back for validation."
            if none
            else ""
        )
        yield Finding(
            "few-images",
            f"{counted(len(few), 'class')} {_have(len(few))} fewer than {FEW} images in the train "
            f"part: {_some([f'{name} ({count})' for count, name in few])}.{extra}",
            "Collect more of them, merge them with a class like them, or leave them out.",
        )


def _uneven(train: Part) -> Iterator[Finding]:
    (least, small), (most, large) = (
        pick((count, name) for name, count in train.counts.items()) for pick in (min, max)
    )
    if most >= UNEVEN * max(least, 1):
        yield Finding(
            "imbalance",
            f"The largest class ({large}, {most:,}) has {most / max(least, 1):,.1f} times as many "
            f"images as the smallest ({small}, {least:,}).",
            "Train with --balance, and quote the balanced accuracy beside the accuracy.",
        )


def _copies(audit: Audit) -> Iterator[Finding]:
    groups = [group for group in audit.groups if group.scope == "one class"]
    if not groups:
        return
    exact = sum(group.exact for group in groups)
    across = (
        f" {counted(audit.straddling, 'picture')} would be both in train and in the test part that "
        "thawnet splits off."
        if audit.straddling
        else ""
    )
    yield Finding(
        "copies",
        f"{counted(len(groups), 'picture')} {_are(len(groups))} in the same class more than once: "
        f"{_kinds(exact, len(groups))}.{across}",
        "Keep one of each. A split keeps exact copies together but not near ones, which make the "
        "accuracy look better than it is.",
    )


def _coarse(audit: Audit) -> Iterator[Finding]:
    parts = [
        (part.name, sum(part.counts.values()), f"Put more photos into {part.name}/")
        for part in audit.parts[1:]
    ]
    if "test" in audit.split_off:
        more = "Collect more photos, or put some into a folder test/ beside train/"
        parts.append(("test", audit.split_off["test"], more))
    for name, count, more in parts:
        # Half of the 95 % normal interval of an accuracy of 80 %, which is close enough here.
        points = 196 * math.sqrt(0.16 / count) if count else 100.0
        if points > COARSE:
            uncertain = (
                f"an accuracy of 80 % measured on it is uncertain by {points:.0f} points"
                if count > NONE_HELD_BACK
                else "nothing can be measured on it"
            )
            yield Finding(
                f"{name}-small",
                f"The {name} part has {counted(count, 'image')}: {uncertain}.",
                f"{more}; until then quote the interval beside the accuracy.",
            )


def _plain(audit: Audit) -> Iterator[Finding]:
    names = [name for part in audit.parts for name in part.plain]
    if names:
        yield Finding(
            "plain",
            f"{counted(len(names), 'image')} {_are(len(names))} of one colour or a bare gradient: "
            f"{_some(names)}.",
            "Look at them, and delete those that show nothing.",
        )


def _animated(audit: Audit) -> Iterator[Finding]:
    names = [name for part in audit.parts for name in part.animated]
    if names:
        yield Finding(
            "animated",
            f"{counted(len(names), 'image')} {_have(len(names))} further frames or pages: "
            f"{_some(names)}.",
            "Only the first is used; save the others as images of their own if they matter.",
        )


def _small(audit: Audit) -> Iterator[Finding]:
    read = sum(sum(part.counts.values()) for part in audit.parts)
    small = sum(part.smaller for part in audit.parts)
    if small:
        share = (
            "All images are"
            if small == read
            else f"{counted(small, 'image')} of {read:,} {_are(small)}"
        )
        yield Finding(
            "smaller-than-input",
            f"{share} smaller than an input of {audit.size} x {audit.size} pixels (--size).",
            "They are enlarged; use larger originals where there are any.",
        )
    tiny = sum(part.tiny for part in audit.parts)
    if tiny:
        yield Finding(
            "too-small-to-compare",
            f"{counted(tiny, 'image')} {_are(tiny)} under {LEAST_SIDE} pixels a side: too small to "
            "tell a near copy from a look-alike, so only exact copies were looked for.",
            "Nothing, if the images are meant to be that small.",
        )


def _cut(audit: Audit) -> Iterator[Finding]:
    cut = sum(part.cut for part in audit.parts)
    if cut:
        read = sum(sum(part.counts.values()) for part in audit.parts)
        yield Finding(
            "cut-by-crop",
            f"{counted(cut, 'image')} of {read:,} {_are(cut)} so wide or tall that the crop to the "
            "centre loses more than a third.",
            "If the subject may be near an end, train with --fit squash (the whole image, out of "
            "proportion) or --fit pad (the whole image, with borders).",
        )


def _deep(audit: Audit) -> Iterator[Finding]:
    fewer = Counter[str]()
    for part in audit.parts:
        for mode, count in part.modes.items():
            match = re.fullmatch(r"grey of (\d+ bits) in 16", mode)
            if match and match[1] != "16 bits":
                fewer[match[1]] += count
    if fewer:
        kinds = ", ".join(f"{bits} ({count:,})" for bits, count in sorted(fewer.items()))
        yield Finding(
            "fewer-bits-than-stored",
            f"{counted(fewer.total(), 'image')} {_have(fewer.total())} grey levels in 16 bits that "
            f"use fewer: {kinds}.",
            "Training scales all by the most bits that any of them uses, and so does the network "
            "afterwards; if their bit depths really differ, save them with 8 bits.",
        )


def _kinds(exact: int, groups: int) -> str:
    words = ((exact, "pixel for pixel"), (groups - exact, "nearly the same"))
    return ", ".join(f"{count:,} {word}" for count, word in words if count)


def _these(count: int, noun: str) -> str:
    return f"this {noun}" if count == 1 else f"these {noun}es"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
