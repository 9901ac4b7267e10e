"""Cost and accuracy of a run, by the numbers of images and processes.

    python benchmarks/scale.py --counts 10000 50000 200000 --epochs 1 1
    python benchmarks/scale.py --counts 10000 --seeds 0 1 2

Each row is `thawnet train` (recipe quick, from the weights in ../shared) on a number of training
images of CIFAR-100 and its 10,000 test images, alone or under torchrun, on empty caches. Beyond
50,000, the images repeat, each time shifted by one more pixel, so that no two are equal. The
processes share all cores. Prints a line per run: seconds of the stages and of the whole command,
peak anonymous memory of all its processes together (Linux), and the test accuracy, which shows that
the number of processes does not change what is learned.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import tyro

from inputs import write_shards
from runs import THAWNET, Bench, emptied

STAGES = ("data", "features", "head", "fine-tune", "test", "baseline")


def scale(
    counts: tuple[int, ...] = (10_000, 50_000, 200_000),
    processes: tuple[int, ...] = (1, 2),
    seeds: tuple[int, ...] = (0,),
    epochs: tuple[int, int] | None = None,
    shared: Path = Path("../shared"),
) -> None:
    """Measure every number of images with every number of processes and every seed."""
    shared = shared.resolve()
    weights = shared / "weights" / "mobilenetv2_100_imagenet.safetensors"
    words = ["--recipe", "quick", *(["--epochs", *map(str, epochs)] if epochs else [])]
    torchrun = ("-m", "torch.distributed.run", "--standalone")
    print("   images processes seed " + " ".join(f"{stage:>10}" for stage in STAGES), end="")
    print("      whole   memory  test accuracy", flush=True)
    with tempfile.TemporaryDirectory(prefix="scale.", ignore_cleanup_errors=True) as name:
        bench = Bench(shared / "data" / "cifar100", shared / "data", weights, Path(name))
        for count in counts:
            data = bench.scratch / str(count)
            write_shards(bench.data, data, count)
            for seed, number in itertools.product(seeds, processes):
                launcher = (*torchrun, f"--nproc-per-node={number}") if number > 1 else ()
                seeded = (*words, "--seed", str(seed))
                with emptied(bench.scratch / "run") as folder:
                    program = (*launcher, *THAWNET)
                    run = bench.train(seeded, folder, folder / "cache", program, data)
                stages = " ".join(f"{run['seconds'][stage]:8.1f} s" for stage in STAGES)
                print(
                    f"{count:9,} {number:9} {seed:4} {stages} {run['wall']:8.1f} s "
                    f"{run['memory'] / 1e9:5.2f} GB  "
                    f"{100 * run['metrics']['test']['accuracy']:.2f} %",
                    flush=True,
                )


if __name__ == "__main__":
    tyro.cli(scale)
