"""The Hugging Face hub: its own cache first, then the network, in bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from .limits import within
from .published import ANSWER_SECONDS, FetchError, MinimumPace, reason, require_https

T = TypeVar("T")


def endpoint() -> str:
    """Return the hub's address: $HF_ENDPOINT, else huggingface.co."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def from_hub(load: Callable[[], T]) -> T:
    """Return what `load` gets from the hub's cache, or, if that lacks something, from the hub.

    The network is asked only once the hub has answered: its client retries for a minute, and a
    part of it has no time limit. huggingface_hub resumes a broken download and never leaves a
    part under a file's final name. Raises FetchError with the reason when nothing comes.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        try:
            with _offline():
                return load()
        except (LocalEntryNotFoundError, OfflineModeIsEnabled):
            pass
        require_answer()
        return load()
    except FetchError:
        raise
    except Exception as error:  # the client and timm raise many kinds
        raise FetchError(reason(error)) from error


def fetch_shards(repository: str) -> Path:
    """Return the folder of a data set's parquet shards. Raises FetchError."""
    from huggingface_hub import snapshot_download

    def load() -> Path:
        patterns = ["*.parquet", "**/*.parquet"]
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=patterns))

    root = from_hub(load)
    shards = sorted(root.rglob("*.parquet"))
    if not shards:
        raise FetchError(f"'{repository}' holds no parquet shards")
    return shards[0].parent


@contextmanager
def _offline() -> Iterator[None]:
    """Let the hub's client answer from its cache alone, as HF_HUB_OFFLINE=1 does."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def require_answer() -> None:
    """Raise FetchError unless the hub answers within ANSWER_SECONDS."""
    from huggingface_hub import get_session

    require_https(endpoint())
    session = get_session()
    if _refuse_plain_http not in session.event_hooks["request"]:
        session.event_hooks["request"].append(_refuse_plain_http)
        session.event_hooks["response"].append(_watch_pace)
    response = within(ANSWER_SECONDS, lambda: session.head(endpoint(), timeout=ANSWER_SECONDS))
    if response.status_code >= 500:
        raise FetchError(f"HTTP {response.status_code}")


def _refuse_plain_http(request: Any) -> None:
    """Look at every request of the hub's client, also those that a redirect asks for."""
    require_https(str(request.url))


def _watch_pace(response: Any) -> None:
    """Have an answer's bytes counted as they come: the client's time limit is for each read."""
    from httpx2 import SyncByteStream

    stream, pace = response.stream, MinimumPace()

    class Watched(SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for some in stream:
                pace.count(len(some))
                yield some

        def close(self) -> None:
            stream.close()

    response.stream = Watched()
