"""Which optional packages a job needs, and what to say where they are missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from .errors import UsageError

COMPARE_PACKAGES = ("scipy", "matplotlib")
TRAIN_PACKAGES = (
    *("torch", "timm", "onnx", "safetensors", "sklearn", "pyarrow", "tomli_w"),
    *COMPARE_PACKAGES,
    *("huggingface_hub", "pooch", "h5py"),
)
INSTALL = "pip install 'thawnet[train]'"


def missing(packages: Sequence[str]) -> list[str]:
    """Return those packages that can not be imported."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def require_installed(job: str, packages: Sequence[str]) -> None:
    """Raise UsageError with the pip line when packages of the train extra are missing."""
    if lacking := missing(packages):
        raise UsageError(
            f"{job} needs packages that are not installed ({', '.join(lacking)}): {INSTALL}"
        )
