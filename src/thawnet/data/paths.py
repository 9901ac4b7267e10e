"""Image names from arguments: files, folders, patterns, addresses and a list on stdin."""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from ..core.errors import DataError
from ..net.image import is_address
from .names import Names
from .sources.leftovers import is_leftover
from .sources.visible import is_folder, is_image, visible

STDIN = "-"
# First bytes of image files.
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
LONGEST = 2**15  # bytes, more than any path takes; Linux allows 4,096


def image_names(names: Sequence[str], stdin: Iterable[bytes]) -> Names:
    """Return the images that arguments name, in order, including repeats.

    Each argument is one of:
    - a file, whatever its name, or an address;
    - a folder: every image file below it, sorted, a folder's own files first;
    - a pattern with * ? [], and ** for any depth: the image files that match, sorted;
    - '-': the names on `stdin`, an iterable of chunks. They are one per line, or terminated by NULs
      if there are any, as `find -print0` writes them.
    Raises DataError for a folder or a pattern without images.
    """
    return Names(name for argument in names for name in _meant(argument, stdin))


def _meant(argument: str, stdin: Iterable[bytes]) -> Iterator[str]:
    if argument == STDIN:
        names = map(os.fsdecode, filter(None, _listed(stdin)))
        first = next(names, None)
        if first is None:
            raise DataError("-: no names came on stdin")
        yield from chain((first,), names)
    elif os.path.isdir(argument):  # noqa: PTH112 - False, where Path raises for odd names
        yield from _some(_below(argument), f"no image files under the folder '{argument}'")
    elif is_address(argument):
        yield argument  # a ? in an address is not a wildcard
    elif glob.has_magic(argument) and not os.path.lexists(argument):
        matches = glob.iglob(argument, recursive=True)  # noqa: PTH207 - as it was typed, ./ included
        asked = set(argument.split(os.sep))  # noqa: PTH206 - as above
        files = iter(sorted(name for name in matches if _is_image_file(name, asked)))
        yield from _some(files, f"no image file matches '{argument}'")
    else:
        yield argument  # even if it is missing: it is reported in its turn


def _listed(stdin: Iterable[bytes]) -> Iterator[bytes]:
    pieces, rest = iter(stdin), b""
    first = next(pieces, b"")
    if first.startswith(_IMAGES):
        raise DataError("-: stdin holds an image and no names; name it /dev/stdin to predict it")
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as PowerShell writes it
        text = b"".join(chain((first,), pieces)).decode("utf-16", errors="replace")
        yield from map(os.fsencode, text.splitlines())
        return
    pieces = chain((first.removeprefix(codecs.BOM_UTF8),), pieces)
    # If names end in NULs, the first NUL comes within LONGEST bytes. Names may hold line breaks.
    while b"\0" not in rest and len(rest) < LONGEST and (piece := next(pieces, b"")):
        rest += piece
    end, after = (b"\0", b"") if b"\0" in rest else (b"\n", b"\r")
    for piece in chain((b"",), pieces):
        *names, rest = (rest + piece).split(end)
        yield from (name.rstrip(after) for name in names)
    yield rest.rstrip(after)


def _below(folder: str) -> Iterator[str]:
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        inner = []
        for entry in visible(Path(here)):
            name = os.path.join(here, entry.name)  # noqa: PTH118 - as it was typed, ./ included
            if is_folder(entry):
                if not entry.is_symlink():  # it may lead back here
                    inner.append(name)
            elif is_image(entry.name):
                yield name
        waiting += reversed(inner)


def _some(names: Iterator[str], otherwise: str) -> Iterator[str]:
    count = 0
    for count, name in enumerate(names, start=1):  # noqa: B007 - used after the loop
        yield name
    if not count:
        raise DataError(
            f"{otherwise}; images end in .jpg, .png, .webp, .heic, .avif, .gif, .bmp, .tif or .ppm"
        )


def _is_image_file(name: str, asked: set[str]) -> bool:
    """Return whether a match is an image; leftover folders count only if the pattern names them."""
    *folders, file = name.split(os.sep)  # noqa: PTH206 - as above
    left_over = any(is_leftover(folder) for folder in folders if folder not in asked)
    return is_image(file) and not left_over and not os.path.isdir(name)  # noqa: PTH112 - as above
