"""Text for people: untrusted names and values made harmless, commands that can be pasted."""

from __future__ import annotations

import csv
import io
import os
import re
import reprlib
import shlex
import sys
import unicodedata

MAX_NAME = 1000  # characters; a file name has at most 255 bytes
SHOWN = 200  # characters of a value in a message
# These change the direction of the text that follows. Hebrew and Arabic names do not need them: at
# most they need the marks U+200E and U+200F, which affect only their neighbours.
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
LONGEST = 10_000  # characters of a message; room for two paths of the maximum length on Linux

_clipping = reprlib.Repr()
_clipping.maxstring = _clipping.maxother = SHOWN


def printable(text: str) -> str:
    """Return text as one line, without terminal codes."""
    if text.isprintable():
        return text
    # Spaces stay, such as the no-break space, although Python calls them unprintable.
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else "?" for c in text)


def escaped(text: str) -> str:
    """Return text as one line, escaped as in Python, so that different names stay different."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def for_page(text: str) -> str:
    """Return text without characters that HTML or UTF-8 cannot hold."""
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural unless it is one: '1 image', '2,000 classes'."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("ry"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def duration(seconds: float) -> str:
    """Return a duration as readable text, to about two digits."""
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
    """Return a command quoted for this system's shell; `printable` does not change it."""
    if sys.platform == "win32":
        from subprocess import list2cmdline

        return list2cmdline(map(str, words))
    return " ".join(map(_quoted, map(str, words)))


def resume_command(run: object) -> str:
    """Return the command that resumes the unfinished run in the folder `run`."""
    return command_line("thawnet", "train", "--resume", run)


def unfinished(run: object) -> str:
    """Return the error that the run in the folder `run` has no result yet."""
    return f"'{run}' is not finished; wait for it, or continue it: {resume_command(run)}"


def _quoted(word: str) -> str:
    if printable(word) == word:
        return shlex.quote(word)
    # bash, zsh and POSIX 2024 know octal escapes in $'...'; a name's bytes need not be UTF-8.
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
    """Return the repr of a value, shortened if it is long or deeply nested."""
    try:
        text = _clipping.repr(value)
    except ValueError:  # an int with more digits than Python converts
        return f"{type(value).__name__} of too many digits"
    return text if len(text) <= 2 * SHOWN else f"{text[: 2 * SHOWN]}..."


def sentence(text: str) -> str:
    """Return text as one line without terminal codes; a long text loses its middle."""
    text, half = printable(text), LONGEST // 2 - 3
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


def fault_of_name(name: str) -> str | None:
    """Return what is wrong with a class name, or None.

    Terminals, pages and tables would obey control characters, and a long name hides everything
    else. Direction controls make one name look like another.
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
    """Return the line that reports an unreadable image, safe to print."""
    return f"{escaped(name)}  cannot be read: {escaped(str(reason))}"


def csv_row(*cells: str) -> str:
    """Return a row of a CSV file without its line ending; `to_cell` escapes the cells."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow(map(to_cell, cells))
    # A file name need not be UTF-8; other bytes are written as \udc..., as in Python.
    return text.getvalue().encode(errors="backslashreplace").decode()


def to_cell(text: str) -> str:
    """Return text as a cell that no spreadsheet runs as a formula; `from_cell` reverses it.

    An apostrophe is prepended to text that begins with = @ tab or CR, or with + or - unless it is a
    number (https://owasp.org/www-community/attacks/CSV_Injection). Such text after leading
    apostrophes gets one too, so that no cell is ambiguous.
    """
    return f"'{text}" if _is_formula(text.lstrip("'")) else text


def from_cell(cell: str) -> str:
    """Return the text that `to_cell` turned into a cell."""
    return cell[1:] if cell[:1] == "'" and _is_formula(cell.lstrip("'")) else cell


def _is_formula(text: str) -> bool:
    if text[:1] not in ("+", "-"):
        return bool(text) and text[0] in "=@\t\r"
    try:
        float(text)
    except ValueError:
        return True
    return False
