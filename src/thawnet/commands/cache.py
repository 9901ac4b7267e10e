"""The command `cache`: list or clear what is kept between runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ..core import console
from ..core.text import counted


@dataclass(frozen=True)
class CacheOptions:
    """List or clear the cache.

    It holds decoded images, downloads, unpacked archives and the outputs of frozen layers, which
    later runs read instead of making them again.
    """

    action: Annotated[Literal["list", "clear"], tyro.conf.Positional]
    """list: print each entry and the total. clear: remove all but what another process is
    building."""


def cache(options: CacheOptions) -> None:
    """List or clear the cache."""
    from ..core.cache import clear_cache
    from ..core.files import cache_entries, cache_folder

    folder = cache_folder()
    if options.action == "clear":
        console.result(f"removed {clear_cache(console.say) / 1e6:,.1f} MB from {folder}")
        return
    entries = cache_entries()
    for path, size in entries:
        unfinished = " (unfinished)" if path.name.startswith(".") else ""
        console.result(f"{size / 1e6:12,.1f} MB  {path.relative_to(folder)}{unfinished}")
    total = sum(size for _, size in entries)
    console.result(f"{total / 1e6:12,.1f} MB  in {counted(len(entries), 'entry')} under {folder}")
