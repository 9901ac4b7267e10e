"""Names in zip files: their encoding is declared, evident or unknown.

See APPNOTE 4.4.4 (bit 11: UTF-8) and 4.6.9 (Info-ZIP's Unicode path). Without these, Windows and
older programs write the code page of the machine that packed, and macOS writes UTF-8.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator

UTF8 = 1 << 11  # of an entry's flags
UNICODE_PATH = 0x7075  # the extra field that holds a name in UTF-8
CODE_PAGES = ("cp437", "cp932", "gbk", "cp866", "cp1252")  # of DOS, Japan, China, Russia, Windows
SHOWN = 3  # readings of a name


def name_of(info: zipfile.ZipInfo) -> str | None:
    """Return an entry's name, or None if its code page is not known."""
    if info.flag_bits & UTF8:
        return info.orig_filename
    raw = raw_name(info)
    name = _unicode_path(info.extra, raw)
    if name is not None:
        return name
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def raw_name(info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of a name not flagged as UTF-8, which zipfile reads as cp437."""
    return info.orig_filename.encode("cp437")


def readings(raw: bytes) -> str:
    """Return a name as read with several code pages, the likelier ones first."""
    seen: dict[str, str] = {}
    for page in CODE_PAGES:
        try:
            text = raw.decode(page)
        except UnicodeDecodeError:
            continue
        if text.isprintable():
            seen.setdefault(text, page)
    likely = sorted(seen, key=_oddness)[:SHOWN]
    return ", ".join(f"'{text}' ({seen[text]})" for text in likely) or repr(raw)


def _oddness(text: str) -> int:
    """Count characters that are neither ASCII nor letters: box drawing and signs, rare in names."""
    return sum(not letter.isascii() and not letter.isalpha() for letter in text)


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the name in the Unicode path field, if there is one and its checksum matches."""
    for kind, content in _fields(extra):
        if kind == UNICODE_PATH and content[:5] == struct.pack("<BI", 1, zlib.crc32(raw)):
            try:
                return content[5:].decode()
            except UnicodeDecodeError:
                return None
    return None


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        yield kind, extra[4 : 4 + size]
        extra = extra[4 + size :]
