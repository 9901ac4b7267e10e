"""Weights that a name or an address stands for: on the Hugging Face hub, or on any server."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import WeightsError
from ..core.files import cache_folder
from ..net.http import FetchError, require_https
from ..net.hub import endpoint, fetch_files
from ..net.published import Remote, Tell, fetch
from .weight_files import CONFIG, FOLDER_FILES, PIXELS

# As timm writes a repository of the hub, as others do, and the address of its page.
REPOSITORY = re.compile(
    r"(?:hf[-_]hub:|hf:(?://)?|https://huggingface\.co/)([\w.-]+/[\w.-]+?)(?:/tree/[\w.-]+)?/?"
)
LARGEST = 20_000_000_000  # bytes of a file


@dataclass(frozen=True)
class Address(Remote):
    """A file at an address that a user gave: no mirror has it, and other files have its name."""

    @property
    def url(self) -> str:
        """Its address as it was given."""
        return f"{self.base}/{self.name}"

    @property
    def path(self) -> Path:
        """Where it lies once it is downloaded, in a folder of its own."""
        folder = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        return cache_folder() / "downloads" / folder / (self.name or "weights")


def located(name: str, tell: Tell = lambda text: None) -> Path:
    """Return where weights lie on this disk; those of the hub or a server are fetched once.

    Raises WeightsError when they cannot be had.
    """
    repository = REPOSITORY.fullmatch(name)
    try:
        if repository:
            return fetch_files(repository[1], (CONFIG, PIXELS), FOLDER_FILES, tell)
        if "://" not in name:
            return Path(name)
        # Of a file on the hub its page is what a browser shows.
        address = re.sub(r"^(https://huggingface\.co/.*?)/blob/", r"\1/resolve/", name)
        require_https(address)
        base, _, file = address.partition("?")[0].rpartition("/")
        return fetch(Address(base, file, None, LARGEST), tell)
    except FetchError as error:
        if not repository:
            raise WeightsError(
                f"--weights '{name}' could not be fetched ({error}); give an address that starts "
                "with https://, or the file"
            ) from error
        raise WeightsError(
            f"--weights '{name}' could not be fetched from {endpoint()} ({error}); fetch its "
            f"{CONFIG} and weights where there is a network and give their folder, or name a "
            "mirror with the variable HF_ENDPOINT"
        ) from error
