"""Optional packages that a job needs, and the error when they are missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .errors import UsageError
from .text import command_line

COMPARE_PACKAGES = ("scipy", "matplotlib")
TRAIN_PACKAGES = (
    *("torch", "timm", "onnx", "safetensors", "sklearn", "pyarrow", "tomli_w"),
    *COMPARE_PACKAGES,
    *("huggingface_hub", "h5py", "jinja2", "markupsafe"),
)
INSTALL = command_line("pip", "install", "thawnet[train]")


def missing(packages: Sequence[str]) -> list[str]:
    """Return the packages that cannot be imported."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def require_installed(job: str, packages: Sequence[str], install: str = INSTALL) -> None:
    """Raise UsageError with the pip command `install` if packages are missing."""
    if lacking := missing(packages):
        raise _lacking(job, lacking, install)


@contextmanager
def told_when_missing(job: str) -> Iterator[None]:
    """Raise UsageError with the pip command if an import inside lacks a package of the train extra.

    For jobs whose requirements depend on the data.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").split(".")[0]
        if name not in TRAIN_PACKAGES:
            raise
        raise _lacking(job, [name]) from error


def _lacking(job: str, names: Sequence[str], install: str = INSTALL) -> UsageError:
    return UsageError(
        f"{job} needs packages that are not installed ({', '.join(names)}): {install}"
    )
