"""Text for people: names and values from outside made harmless, commands that can be pasted."""

from __future__ import annotations

import csv
import io
import os
import re
import reprlib
import shlex
import sys
import unicodedata

MAX_NAME = 1000  # characters; a file's name has 255 bytes
SHOWN = 200  # characters of a value in a message
# They turn the direction of the text that follows. Names in Hebrew and Arabic need none of them: at
# most the marks U+200E and U+200F, which turn nothing but their neighbours.
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
LONGEST = 10_000  # characters of a message; two of the longest paths that Linux takes have room

_clipping = reprlib.Repr()
_clipping.maxstring = _clipping.maxother = SHOWN


def printable(text: str) -> str:
    """Return text as one line, without terminal codes."""
    if text.isprintable():
        return text
    # Of what Python calls unprintable only spaces stay, such as the one that does not break.
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else "?" for c in text)


def escaped(text: str) -> str:
    """Return text as one line, codes escaped as Python does, so that names stay different."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def for_page(text: str) -> str:
    """Return text without characters that HTML or UTF-8 cannot hold."""
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural unless it is one: '1 image', '2,000 classes'."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def duration(seconds: float) -> str:
    """Return a time for a person, to about two digits."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def command_line(*words: object) -> str:
    """Return a command to paste into this system's shell, which `printable` leaves as it is."""
    if sys.platform == "win32":
        from subprocess import list2cmdline

        return list2cmdline(map(str, words))
    return " ".join(map(_quoted, map(str, words)))


def resume_command(run: object) -> str:
    """Return the command that continues an unfinished run; run: its folder."""
    return command_line("thawnet", "train", "--resume", run)


def _quoted(word: str) -> str:
    if printable(word) == word:
        return shlex.quote(word)
    # Quotes whose octal escapes bash, zsh and POSIX 2024 know; a name's bytes need not be UTF-8.
    escaped = "".join(
        f"\\{c}"
        if c in "\\'"
        else c
        if printable(c) == c
        else "".join(f"\\{byte:03o}" for byte in os.fsencode(c))
        for c in word
    )
    return f"$'{escaped}'"


def shown(value: object) -> str:
    """Return a value as Python writes it, cut where it is long or deep."""
    try:
        text = _clipping.repr(value)
    except ValueError:  # an int of more digits than Python writes out
        return f"{type(value).__name__} of too many digits"
    return text if len(text) <= 2 * SHOWN else f"{text[: 2 * SHOWN]}..."


def sentence(text: str) -> str:
    """Return text as one line without terminal codes, the middle left out if it is long."""
    text, half = printable(text), LONGEST // 2 - 3
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


def fault_of_name(name: str) -> str | None:
    """Return what is wrong with a class's name, or None.

    Terminals, pages and tables would obey control characters, and a long name hides all else.
    Direction controls make a name look like another.
    """
    if len(name) > MAX_NAME:
        return f"class '{printable(name[:40])}...' has {len(name):,} characters, over {MAX_NAME:,}"
    if not name.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        return (
            f"class '{printable(name)}' has control or broken characters (shown as ?) in its name"
        )
    if turning := TURNING.search(name):
        return (
            f"class '{printable(name)}' has the character U+{ord(turning[0]):04X} in its name "
            "(shown as ?), which turns the direction of the text"
        )
    return None


def unreadable(name: str, reason: object) -> str:
    """Return the line of an image that cannot be read, made safe to show."""
    return f"{escaped(name)}  cannot be read: {escaped(str(reason))}"


def csv_row(*cells: str) -> str:
    """Return a row of a CSV file, its cells as `to_cell` writes them, without its end."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow(map(to_cell, cells))
    # A file name need not be UTF-8; the bytes that are not become \udc..., as Python shows them.
    return text.getvalue().encode(errors="backslashreplace").decode()


def to_cell(text: str) -> str:
    """Return text as a cell that no spreadsheet runs as a formula; `from_cell` undoes it.

    What begins with = @ tab or CR, or with + or - and is no number, gets an apostrophe in front
    (https://owasp.org/www-community/attacks/CSV_Injection), and so does what begins with
    apostrophes before those, that none is ambiguous.
    """
    return f"'{text}" if _is_formula(text.lstrip("'")) else text


def from_cell(cell: str) -> str:
    """Return the text of which `to_cell` made a cell."""
    return cell[1:] if cell[:1] == "'" and _is_formula(cell.lstrip("'")) else cell


def _is_formula(text: str) -> bool:
    if text[:1] not in ("+", "-"):
        return bool(text) and text[0] in "=@\t\r"
    try:
        float(text)
    except ValueError:
        return True
    return False
