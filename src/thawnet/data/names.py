"""Many strings in two arrays: a million paths take the memory of 100,000 Python strings."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from typing import overload


class Names(Sequence[str]):
    """An immutable list of names in one block of bytes; file names of any encoding survive."""

    def __init__(self, names: Iterable[str]) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])
        for name in names:
            self._bytes += os.fsencode(name)
            self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> Names: ...
    def __getitem__(self, position: int | slice) -> str | Names:
        if isinstance(position, slice):
            return Names(self[index] for index in range(*position.indices(len(self))))
        index = range(len(self))[position]
        return os.fsdecode(bytes(self._bytes[self._ends[index] : self._ends[index + 1]]))
