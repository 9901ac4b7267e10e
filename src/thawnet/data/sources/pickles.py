"""A pickle read as data: nothing that it names is ever imported or called."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_STEPS = 2_000_000  # of the unpickler; 50,000 images take up to 700,000, depending on protocol


class PickleRefusedError(ValueError):
    """The pickle needs more than containers, strings, numbers and arrays of bytes."""


def read_pickle(content: bytes) -> Any:
    """Return what a pickle holds: numbers, strings, uint8 arrays, flat lists, a dict of these.

    Keys are returned as text, other strings of Python 2 as bytes. Raises PickleRefusedError for
    anything else.
    """
    try:
        _check_size(content)
        value = _Reader(io.BytesIO(content), encoding="bytes").load()
    except PickleRefusedError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise PickleRefusedError(f"not a whole pickle ({type(error).__name__})") from error
    return _plain(value)


def _check_size(content: bytes) -> None:
    """Raise for a memo position, a length or a number of steps beyond what CIFAR's pickles need.

    For a pickle of ten bytes that names position 2^31, the unpickler would allocate 17 GB. It turns
    every one-byte empty list into 64 bytes.
    """
    # genops itself compares every length with the bytes left.
    for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if step == MOST_STEPS:
            raise PickleRefusedError(f"it takes more than {MOST_STEPS:,} steps")
        if "PUT" in opcode.name and int(argument or 0) > len(content):
            raise PickleRefusedError(f"it numbers something {argument:,}")


class _Reader(pickle.Unpickler):
    """An unpickler that replaces the few names it allows by stand-ins, which hold only data.

    Every stand-in refuses or checks BUILD, so that a pickle cannot change one either.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocol 2
            return _Named("encode")
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in (
            "_reconstruct",
            "ndarray",
            "dtype",
        ):
            return _Named(name)
        raise PickleRefusedError(f"it asks for {module}.{name}")


class _Named:
    """A stand-in for a name in a pickle; calling it returns data or an array to fill."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        if self.name == "_reconstruct":
            return _Array()
        if self.name == "dtype" and arguments[:1] in (("u1",), (b"u1",)):
            return _Bytes()
        if self.name == "encode" and len(arguments) == 2 and isinstance(arguments[0], str):
            return arguments[0].encode("latin-1")
        raise PickleRefusedError(f"it calls {self.name}{arguments[:2]!r:.60}")

    def __setstate__(self, state: Any) -> None:
        raise PickleRefusedError(f"it changes {self.name}")


class _Bytes:
    """A stand-in for numpy's dtype uint8; its state is ignored, as bytes have no order."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        return None


class _Array:
    """A stand-in for an array of bytes, filled from numpy's state: version, shape, dtype, order."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        match state:
            case (int(), tuple(shape), _Bytes(), order, bytes(raw)) if all(
                type(side) is int and side >= 0 for side in shape
            ):
                if math.prod(shape) != len(raw):
                    raise PickleRefusedError(f"an array of shape {shape} has {len(raw):,} bytes")
                flat = np.frombuffer(raw, dtype=np.uint8)
                self.value = flat.reshape(shape, order="F" if order else "C")
            case _:
                raise PickleRefusedError("it holds an array that is not of bytes")


def _plain(value: Any) -> Any:
    """Return a scalar, an array, a flat list of scalars, or a dict of these with text keys."""
    if isinstance(value, dict):
        return {
            key.decode("latin-1") if isinstance(key, bytes) else str(key): _flat(inner)
            for key, inner in value.items()
        }
    return _flat(value)


def _flat(value: Any) -> Any:
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    for scalar in value if isinstance(value, (list, tuple)) else [value]:
        if not isinstance(scalar, (int, float, str, bytes, type(None))):
            raise PickleRefusedError(
                f"it holds a nested {type(scalar).__name__.strip('_').lower()}"
            )
    return value
