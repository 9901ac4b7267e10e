"""What a run takes as images and processes grow, and that processes do not change what it learns.

    python benchmarks/scale.py --counts 10000 50000 200000 --epochs 1 1
    python benchmarks/scale.py --counts 10000 --seeds 0 1 2

Each row is `thawnet train` (recipe quick, from the weights in ../shared) on so many training images
of CIFAR-100 and its 10,000 test images, alone or under torchrun, on empty caches. Beyond 50,000
the images come again, each shifted by a pixel more, so that no two are equal. All cores are shared
out among the processes. Prints a line per run: seconds of the stages, of the whole command, the
most anonymous memory that all its processes held together (Linux), and the test accuracy.
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from PIL import Image

from trials import scratch_folder, thawnet

STAGES = ("data", "features", "head", "fine-tune", "test", "baseline")
ROWS = 20_000  # in a shard


def shifted(png: bytes, step: int) -> bytes:
    """Return an image rolled along its diagonal by so many pixels."""
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.roll(np.asarray(image), (step, step), axis=(0, 1))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_shards(cifar: Path, folder: Path, count: int, held_out: int | None = None) -> None:
    """Write `count` training images as CIFAR-100 lies here, and its test part or its beginning."""
    folder.mkdir(parents=True)
    for shard in cifar.glob("test-*.parquet"):
        if held_out is None:
            (folder / shard.name).symlink_to(shard.resolve())
        else:
            pq.write_table(pq.read_table(shard)[:held_out], folder / shard.name)
    whole = pa.concat_tables([pq.read_table(path) for path in sorted(cifar.glob("train-*"))])
    files = -(-count // ROWS)
    for number in range(files):
        rows = np.arange(number * ROWS, min((number + 1) * ROWS, count))
        part = whole.take(rows % len(whole))
        times = rows // len(whole)
        if times.any():
            images = [
                {"bytes": shifted(each["bytes"], int(step)), "path": None}
                for each, step in zip(part["img"].to_pylist(), times, strict=True)
            ]
            column = pa.array(images, type=part.schema.field("img").type)
            part = part.set_column(0, part.schema.field("img"), column)
        pq.write_table(part, folder / f"train-{number:05d}-of-{files:05d}.parquet")


def write_photos(data: Path, folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write CIFAR-100's first test images as JPEGs of (width, height); return the folder.

    Enlarged ones get noise, without which they would be decoded faster than photos are.
    """
    folder.mkdir(parents=True)
    rows = (
        cell["bytes"]
        for shard in sorted(data.glob("test-*.parquet"))
        for cell in pq.read_table(shard, columns=["img"])["img"].to_pylist()
    )
    for number, content in enumerate(itertools.islice(itertools.cycle(rows), count)):
        image = Image.open(io.BytesIO(content)).convert("RGB")
        if image.size != size:
            rng = np.random.default_rng(number)
            smooth = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)
            noisy = smooth + rng.normal(0, 6, smooth.shape)
            image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number:05d}.jpg", quality=90)
    return folder


def measure(data: Path, processes: int, words: Sequence[str], work: Path) -> dict[str, Any]:
    """Do one run on empty caches and return its figures."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    program = (*(torchrun if processes > 1 else ()), "-m", "thawnet", "train")
    with scratch_folder(work) as place:
        return thawnet(
            ("cifar100", "--data-dir", str(data), "--recipe", "quick", *words),
            place / "work",
            place / "cache",
            program,
        )


def scale(
    counts: tuple[int, ...] = (10_000, 50_000, 200_000),
    processes: tuple[int, ...] = (1, 2),
    seeds: tuple[int, ...] = (0,),
    epochs: tuple[int, int] | None = None,
    shared: Path = Path("../shared"),
) -> None:
    """Measure every number of images with every number of processes and every seed."""
    weights = shared.resolve() / "weights" / "mobilenetv2_100_imagenet.safetensors"
    words = ["--weights", str(weights)]
    if epochs:
        words += ["--epochs", *map(str, epochs)]
    print("   images processes seed " + " ".join(f"{stage:>10}" for stage in STAGES), end="")
    print("      whole   memory  test accuracy", flush=True)
    with tempfile.TemporaryDirectory(prefix="scale.", ignore_cleanup_errors=True) as name:
        for count in counts:
            data = Path(name) / str(count)
            write_shards(shared.resolve() / "data" / "cifar100", data, count)
            for seed, number in itertools.product(seeds, processes):
                found = measure(data, number, [*words, "--seed", str(seed)], Path(name))
                spent = [found["seconds"][stage] for stage in STAGES]
                print(f"{count:9,} {number:9} {seed:4} ", end="")
                print(" ".join(f"{each:8.1f} s" for each in spent), end="")
                print(f" {found['wall']:8.1f} s {found['memory'] / 1e9:5.2f} GB", end="")
                print(f"  {100 * found['metrics']['test']['accuracy']:.2f} %", flush=True)


if __name__ == "__main__":
    tyro.cli(scale)
