"""Files from the Hugging Face hub: its cache first, then the network, in bounded time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..core.files import cache_folder, fingerprint, write_json
from ..core.text import counted
from .http import FetchError, MinimumPace, answered, reason, require_https

T = TypeVar("T")

CONVERTED = "refs/convert/parquet"  # a branch of every data set that the hub can read


class MissingError(FetchError):
    """The hub answered, and has not what was asked for, or does not show it."""


def endpoint() -> str:
    """Return the hub's address: $HF_ENDPOINT, else huggingface.co."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def from_hub(load: Callable[[], T]) -> T:
    """Return the result of `load` from the hub's cache or, if that lacks something, from the hub.

    The hub must answer a short request first: its client retries for a minute, and has no time
    limit in places. huggingface_hub resumes a broken download and never leaves a part under a
    file's final name. Raises FetchError with the reason on failure.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    with _fetch_errors():
        try:
            with _offline():
                return load()
        except (LocalEntryNotFoundError, OfflineModeIsEnabled):
            pass
        require_answer()
        return load()


def fetch_shards(repository: str) -> Path:
    """Return the folder of a data set's parquet shards. Raises FetchError."""
    from huggingface_hub import snapshot_download

    def load() -> Path:
        patterns = ["*.parquet", "**/*.parquet"]
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=patterns))

    shards = sorted(from_hub(load).rglob("*.parquet"))
    if not shards:
        raise FetchError(f"'{repository}' holds no parquet shards")
    return shards[0].parent


Choose = Callable[[list[str]], list[str]]


def fetch_dataset(
    repository: str, config: str | None, choose: Choose, tell: Callable[[str], None]
) -> tuple[Path, list[Path]]:
    """Fetch parquet files of a data set, once; return their folder and these files.

    The hub converts the data sets that hold none (in the branch CONVERTED). choose: returns which
    of their names are of the configuration `config`; it may raise what it likes. tell: receives one
    line before a download.
    Raises FetchError.
    """
    from huggingface_hub import snapshot_download

    note = cache_folder() / "hub" / f"{fingerprint([endpoint(), repository, config])}.json"
    if note.exists():
        kept = json.loads(note.read_text(encoding="utf-8"))
        files = [Path(kept["root"]) / name for name in kept["files"]]
        if all(file.exists() for file in files):
            return Path(kept["root"]), files
    require_answer()
    with _fetch_errors():
        branch, found = _parquet_names(repository)
    names = choose(found)
    tell(f"fetching {repository} from {endpoint()}: {counted(len(names), 'file')}")
    with _fetch_errors():
        root = Path(
            snapshot_download(
                repository, repo_type="dataset", revision=branch, allow_patterns=names
            )
        )
    write_json(note, {"root": str(root), "files": names})
    return root, [root / name for name in names]


def _parquet_names(repository: str) -> tuple[str | None, list[str]]:
    """Return the branch of a data set with parquet files, None for the main one, and these."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    for branch in (None, CONVERTED):
        try:
            names = HfApi().list_repo_files(repository, repo_type="dataset", revision=branch)
        except RevisionNotFoundError:
            continue
        if found := sorted(name for name in names if name.lower().endswith(".parquet")):
            return branch, found
    raise MissingError("it holds no parquet files, and the hub has made none of it")


def fetch_files(
    repository: str, wanted: Iterable[str], one_of: Iterable[str], tell: Callable[[str], None]
) -> Path:
    """Fetch files of a model's repository and return their folder.

    wanted: files to fetch if the repository has them. one_of: the first of these that it has is
    fetched too. tell: receives one line if the hub is asked.
    Raises FetchError, also if the repository has none of `one_of`.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def get(name: str) -> Path | None:
        def load() -> Path | None:
            try:
                return Path(hf_hub_download(repository, name))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                return None

        cached = try_to_load_from_cache(repository, name)
        known_to_lack = cached is not None and not isinstance(cached, str)
        return None if known_to_lack else from_hub(load)

    if any(try_to_load_from_cache(repository, name) is None for name in wanted):
        tell(f"asking {endpoint()} for {repository}")
    for name in wanted:
        get(name)
    names = tuple(one_of)
    for name in names:
        path = get(name)
        if path is not None:
            return path.parents[name.count("/")]
    raise FetchError(f"'{repository}' holds none of {', '.join(names)}")


@contextmanager
def _offline() -> Iterator[None]:
    """Make the hub's client use only its cache, as HF_HUB_OFFLINE=1 does."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def require_answer() -> None:
    """Raise FetchError unless the hub answers in time."""
    from huggingface_hub import get_session

    require_https(endpoint())
    session = get_session()
    if _refuse_plain_http not in session.event_hooks["request"]:
        session.event_hooks["request"].append(_refuse_plain_http)
        session.event_hooks["response"].append(_watch_pace)
    with _fetch_errors():
        response = answered(lambda seconds: session.head(endpoint(), timeout=seconds))
    if response.status_code >= 500:
        raise FetchError(f"HTTP {response.status_code}")


@contextmanager
def _fetch_errors() -> Iterator[None]:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        yield
    except FetchError:
        raise
    except RepositoryNotFoundError as error:  # also of what one may not see
        raise MissingError(
            "there is none of that name, or it needs a login; check the name, or log in with "
            "`hf auth login`"
        ) from error
    except Exception as error:  # the client and timm raise many kinds
        raise FetchError(reason(error)) from error


def _refuse_plain_http(request: Any) -> None:
    """Refuse plain http in any request of the hub's client, including redirected ones."""
    require_https(str(request.url))


def _watch_pace(response: Any) -> None:
    """Check the pace of a response as it is read: the client's time limit is for each read."""
    from httpx2 import SyncByteStream

    stream, pace = response.stream, MinimumPace()

    class Watched(SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for piece in stream:
                pace.count(len(piece))
                yield piece

        def close(self) -> None:
            stream.close()

    response.stream = Watched()
