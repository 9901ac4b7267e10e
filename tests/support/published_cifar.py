"""CIFAR as its publisher writes it: small archives in either form."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import numpy as np

from thawnet.data.sources import cifar

COUNTS = {"train": 50, "test": 20}
Part = tuple[np.ndarray, np.ndarray]  # (n, 32, 32, 3) images, (n,) labels


def python2_string(value: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(value)) + value


def python2_number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def python2_pickle(table: dict[str, list[int] | list[str] | np.ndarray]) -> bytes:
    """Write as Python 2's cPickle with protocol 2 did: strings are bytes, arrays numpy's."""
    out = b"\x80\x02}("
    for key, value in table.items():
        out += python2_string(key.encode())
        if isinstance(value, np.ndarray):
            out += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            shape = b"".join(python2_number(side) for side in value.shape)
            out += b"(K\x01" + shape + b"\x86"
            out += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
            out += b"J\xff\xff\xff\xffK\x00tb\x89" + python2_string(value.tobytes()) + b"tb"
        else:
            words = (
                python2_string(word.encode()) if isinstance(word, str) else python2_number(word)
                for word in value
            )
            out += b"](" + b"".join(words) + b"e"
    return out + b"u."


def files_of(name: str, form: str, parts: dict[str, Part], classes: list[str]) -> dict[str, bytes]:
    """Return the files of a form, by name."""
    layout = cifar.LAYOUTS[name]
    kind = layout.binary if form == "binary" else layout.python
    files: dict[str, bytes] = {}
    if form == "binary":
        files[kind.names] = "".join(f"{word}\n" for word in classes).encode() + b"\n"
    else:
        files[kind.names] = python2_pickle({layout.names_key: classes})
    for part, names in kind.parts.items():
        images, labels = parts[part]
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        rows = zip(names, np.split(flat, len(names)), np.split(labels, len(names)), strict=True)
        for file, pixels, marks in rows:
            if form == "binary":
                coarse = [marks // 5] if name == "cifar100" else []
                columns = [*coarse, marks]
                table = np.concatenate([np.stack(columns, 1).astype(np.uint8), pixels], axis=1)
                files[file] = table.tobytes()
            else:
                files[file] = python2_pickle(
                    {"filenames": ["x.png"], "data": pixels, layout.label_key: marks.tolist()}
                )
    return files


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"published/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def small(name: str) -> tuple[dict[str, Part], list[str]]:
    classes = cifar.LAYOUTS[name].classes
    rng = np.random.default_rng(3)
    parts = {
        part: (
            rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
            rng.integers(0, classes, count),
        )
        for part, count in COUNTS.items()
    }
    return parts, [f"class {number}" for number in range(classes)]
