"""How fast a folder of photos becomes a store, against bare decoding, and the memory it takes.

    python benchmarks/store.py 10000 100000

For each count it writes that many JPEGs of 320 x 240, no two alike, and prints images/s of bare
decoding (threads that read, decode and reduce, nothing else), of building the store, of the pass
that hashes every file, and the peak anonymous memory of the process that does both (Linux only).
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from thawnet.data.sources.open import open_source
from thawnet.data.store import open_store
from thawnet.image.decode import decode
from thawnet.image.preprocess import reduce

DISTINCT = 300
CLASSES = 10
SIDE = 110  # what an input of 96 px keeps
WORKERS = os.cpu_count() or 1


def write_photos(folder: Path, count: int) -> None:
    """Write JPEGs of textured noise; a comment in each makes its hash its own."""
    rng = np.random.default_rng(0)
    photos = []
    for _ in range(DISTINCT):
        coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)
        pixels = np.asarray(image, np.int16) + rng.integers(-12, 13, (240, 320, 3))
        stream = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
        photos.append(stream.getvalue())
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    for number in range(count):
        photo = photos[number % DISTINCT]
        comment = f"{number:08d}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        path = folder / f"class{number % CLASSES}" / f"photo{number:08d}.jpg"
        path.write_bytes(photo[:2] + segment + photo[2:])


def bare_decoding(folder: Path, count: int) -> float:
    """Return images/s of threads that do nothing but read, decode and reduce."""
    files = sorted(folder.rglob("*.jpg"))[:count]

    def some(part: list[Path]) -> None:
        for file in part:
            reduce(decode(file.read_bytes(), SIDE), SIDE)

    start = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(some, [files[start : start + 50] for start in range(0, len(files), 50)]))
    return len(files) / (time.perf_counter() - start)


def anonymous_memory() -> int:
    """Return the bytes this process holds that are no file's."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def open_and_build(folder: Path) -> None:
    """Print the images/s of the hash pass and of the store, and the peak memory in MB."""
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous_memory())

    watcher = threading.Thread(target=watch)
    if Path("/proc/self/status").exists():
        watcher.start()
    start = time.perf_counter()
    source = open_source(str(folder))
    items = source.open_part("train")
    listed = time.perf_counter()
    store = open_store(items, SIDE, lambda _: None, WORKERS)
    built = time.perf_counter()
    done.set()
    count = len(store)
    sys.stdout.write(f"{count / (listed - start)} {count / (built - listed)} {peak / 1e6}\n")


def main() -> None:
    """Measure each count in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=int, nargs="*", default=[10_000])
    parser.add_argument("--folder", type=Path, help="where to write the photos and the store")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        open_and_build(chosen.measure)
        return
    sys.stdout.write(f"{WORKERS} threads, short side {SIDE} px\n")
    for count in chosen.counts:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
            folder = Path(name) / "photos"
            write_photos(folder, count)
            before = bare_decoding(folder, count)
            printed = subprocess.run(
                [sys.executable, __file__, "--measure", str(folder)],
                env={**os.environ, "THAWNET_CACHE": str(Path(name) / "cache")},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            hashing, building, peak = map(float, printed.split())
            after = bare_decoding(folder, count)
            bare = 2 / (1 / before + 1 / after)  # so that a machine's drift cancels
            sys.stdout.write(
                f"{count:8,} images: bare decoding {bare:,.0f}/s ({before:,.0f} before, "
                f"{after:,.0f} after), store {building:,.0f}/s "
                f"({100 * building / bare:.0f} %), hash pass {hashing:,.0f}/s, "
                f"peak anonymous memory {peak:,.0f} MB\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
