"""Public data sets from the Hugging Face hub, in its own cache."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError


def fetch_from_hub(repository: str) -> Path:
    """Download the parquet shards of a data set once and return their folder.

    huggingface_hub resumes broken downloads and never leaves a half-written file under its final
    name. Raises DataError with the ways on when the hub can not be reached.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = huggingface_hub.snapshot_download(
            repository, repo_type="dataset", allow_patterns=["*.parquet", "**/*.parquet"]
        )
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise DataError(
            f"'{repository}' could not be downloaded from the Hugging Face hub "
            f"({type(error).__name__}); give a local copy of its parquet shards with --data-dir, "
            "a mirror with the variable HF_ENDPOINT, or try the embedded data: thawnet train digits"
        ) from error
    root = Path(folder)
    shards = sorted(root.rglob("*.parquet"))
    return shards[0].parent if shards else root
