"""Weights given by name or address, on the Hugging Face hub or any other server."""

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

# A hub repository as timm writes it, as others do, and as the address of its page.
REPOSITORY = re.compile(
    r"(?:hf[-_]hub:|hf:(?://)?|https://huggingface\.co/)([\w.-]+/[\w.-]+?)(?:/tree/[\w.-]+)?/?"
)
LARGEST = 20_000_000_000  # bytes of a file


@dataclass(frozen=True)
class Address(Remote):
    """A file at a user's address: no mirror has it, and its name is not unique."""

    @property
    def url(self) -> str:
        """The file's own address, never a mirror's."""
        return f"{self.base}/{self.name}"

    @property
    def path(self) -> Path:
        """Path of the download, in a folder of its own."""
        folder = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        return cache_folder() / "downloads" / folder / (self.name or "weights")


def located(name: str, tell: Tell = lambda text: None) -> Path:
    """Return the local path of weights; those on the hub or a server are fetched once.

    Raises WeightsError when they cannot be fetched.
    """
    repository = REPOSITORY.fullmatch(name)
    try:
        if repository:
            return fetch_files(repository[1], (CONFIG, PIXELS), FOLDER_FILES, tell)
        if "://" not in name:
            return Path(name)
        # A browser shows the page of a file on the hub, not the file's own address.
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
