"""Speed and memory of building a store from a folder of photos, compared with bare decoding.

    python benchmarks/store.py 10000 100000

For each count it writes that many JPEGs of 320 x 240, no two alike, and prints images/s of bare
decoding (threads that read, decode and reduce, nothing else), of building the store, of the pass
that hashes every file, and the peak anonymous memory of the process that does both.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import tyro

from inputs import write_photos
from thawnet.core.memory import PeakMemory, available_cores
from thawnet.data.sources.open import open_source
from thawnet.data.store import open_store
from thawnet.image.decode import decode
from thawnet.image.preprocess import Reduction, reduce

SIDE = 110  # pixels; the short side stored for an input of 96 px
WORKERS = available_cores()


def bare_decoding(folder: Path) -> float:
    """Return images/s of threads that do nothing but read, decode and reduce."""
    files = sorted(folder.rglob("*.jpg"))

    def reduced(part: list[Path]) -> None:
        for file in part:
            reduce(decode(file.read_bytes(), SIDE), Reduction(SIDE))

    begun = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(reduced, [files[start : start + 50] for start in range(0, len(files), 50)]))
    return len(files) / (time.perf_counter() - begun)


def open_and_build(folder: Path) -> tuple[float, float, float]:
    """Return the images/s of the hash pass and of the store, and the peak memory in MB."""
    with PeakMemory() as peak:
        begun = time.perf_counter()
        items = open_source(str(folder)).open_part("train")
        listed = time.perf_counter()
        count = len(open_store(items, Reduction(SIDE), lambda _: None, WORKERS))
        built = time.perf_counter()
    return count / (listed - begun), count / (built - listed), peak.bytes / 1e6


def main(counts: tyro.conf.Positional[tuple[int, ...]], shared: Path = Path("../shared")) -> None:
    """Measure each count in a process of its own. shared: holds data/cifar100."""
    print(f"{WORKERS} threads, short side {SIDE} px")
    context = multiprocessing.get_context("spawn")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            os.environ["THAWNET_CACHE"] = f"{name}/cache"
            photos = Path(name) / "photos"
            for label in ("a", "b"):
                cifar = shared / "data" / "cifar100"
                write_photos(cifar, photos / label, count // 2, (320, 240))
            before = bare_decoding(photos)
            with ProcessPoolExecutor(1, context) as process:
                hashing, building, peak = process.submit(open_and_build, photos).result()
            after = bare_decoding(photos)
            bare = 2 / (1 / before + 1 / after)  # so that the machine's drift cancels
            print(
                f"{count:8,} images: bare decoding {bare:,.0f}/s ({before:,.0f} before, "
                f"{after:,.0f} after), store {building:,.0f}/s "
                f"({100 * building / bare:.0f} %), hash pass {hashing:,.0f}/s, "
                f"peak anonymous memory {peak:,.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    tyro.cli(main)
