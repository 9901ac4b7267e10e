"""Headers of JPEG files, read without a decoder."""

from __future__ import annotations

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers that begin a frame's header
_BASELINE = (0xC0, 0xC1)
_SCAN = 0xDA


def streams(data: bytes) -> bool:
    """Return whether a JPEG is decoded row by row: one scan of all its colours, not progressive.

    For any other, the decoder keeps every coefficient in memory, 2 bytes each, even if it decodes
    at reduced size.
    """
    at, colours = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in _FRAMES:
            if marker not in _BASELINE or at + 9 >= len(data):
                return False
            colours = data[at + 9]
        elif marker == _SCAN:
            return 0 < colours == data[at + 4]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
