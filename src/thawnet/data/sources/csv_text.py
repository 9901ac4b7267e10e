"""The text of a CSV file: its encoding, its separator and its rows."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import DataError

SEPARATORS = ",;\t|"
WESTERN = "cp1252"  # what Excel saves as "CSV" in Europe and America
BLOCK = 2**20  # bytes that are checked at a time

Record = tuple[int, list[str]]  # the line where it begins, from 1, and its values


@dataclass(frozen=True)
class CsvText:
    """A CSV file of known encoding and separator."""

    path: Path
    encoding: str
    separator: str
    hint: bool = False
    """Whether the first line is Excel's `sep=;`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user on how the file is read."""
        if self.encoding != WESTERN:
            return ()
        return (
            f"'{self.path.name}' is not UTF-8 and is read as Windows-1252; if names look wrong, "
            "save it as 'CSV UTF-8'",
        )

    def records(self) -> Iterator[Record]:
        """Yield every row that is not empty. Raises DataError for a malformed row."""
        line = 0
        try:
            with self.path.open(encoding=self.encoding, newline="") as file:
                reader = csv.reader(
                    file, delimiter=self.separator, skipinitialspace=True, strict=True
                )
                for cells in reader:
                    if any(cell.strip() for cell in cells) and not (self.hint and not line):
                        yield line + 1, cells
                    line = reader.line_num
        except UnicodeDecodeError as error:
            raise DataError(f"'{self.path}' {_not_text(line)}") from error
        except csv.Error as error:
            raise DataError(
                f"'{self.path}', line {line + 1}: not a row of a CSV ({error})"
            ) from error
        except OSError as error:
            raise DataError(f"'{self.path}' cannot be read: {error.strerror}") from error


def open_text(path: Path) -> CsvText:
    """Detect the encoding and separator of a CSV file.

    The encoding is UTF-8, UTF-16 or else Windows-1252. The separator is a comma, semicolon, tab or
    |, whichever gives the first line the most columns. Raises DataError if it cannot be read.
    """
    try:
        encoding = _encoding(path)
        with path.open(encoding=encoding, newline="") as file:
            first = file.readline(BLOCK).strip()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise DataError(f"'{path}' cannot be read: {reason}") from error
    if first.lower().startswith("sep=") and len(first) == len("sep=;"):
        return CsvText(path, encoding, first[-1], hint=True)
    return CsvText(path, encoding, max(SEPARATORS, key=lambda mark: _columns(first, mark)))


def _columns(line: str, separator: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=separator), []))
    except csv.Error:
        return 0


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(1000)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head[1::2].count(0) > len(head) // 4:
        return "utf-16-le"
    if head[::2].count(0) > len(head) // 4:
        return "utf-16-be"
    if _line_of_fault(path, "utf-8") is None:
        return "utf-8-sig"  # Excel's BOM is not part of the first column's name
    line = _line_of_fault(path, WESTERN)
    if line is not None:
        raise DataError(f"'{path}' {_not_text(line)}")
    return WESTERN


def _line_of_fault(path: Path, encoding: str) -> int | None:
    """Return the line at which a file cannot be decoded, None if all of it can be."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    with path.open("rb") as file:
        while True:
            block = file.read(BLOCK)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return lines + block[: error.start].count(b"\n")
            if not block:
                return None
            lines += block.count(b"\n")


def _not_text(line: int) -> str:
    return f"is not text of a known encoding (line {line}); save it as 'CSV UTF-8'"
