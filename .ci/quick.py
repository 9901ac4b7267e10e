"""Run `quick` on all of CIFAR-100 from empty caches; fail below 75.0 % or above 3 GB.

Memory is the anonymous resident memory of the whole process tree, read four times a second.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from runs import Bench

LEAST_ACCURACY = 75.0
MOST_MEMORY = 3e9


def main() -> int:
    shared = Path(sys.argv[1]).resolve()
    weights = shared / "weights" / "mobilenetv2_100_imagenet.safetensors"
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        bench = Bench(shared / "data" / "cifar100", shared / "data", weights, scratch)
        words = ("--recipe", "quick", *sys.argv[2:])
        run = bench.train(words, scratch / "quick", scratch / "cache")
    accuracy, memory = 100 * run["metrics"]["test"]["accuracy"], run["memory"]
    print(f"test accuracy {accuracy:.2f} %, wall time {run['wall']:.0f} s, ", end="")
    print(f"peak anonymous memory {memory / 1e9:.2f} GB")
    good = accuracy >= LEAST_ACCURACY and memory < MOST_MEMORY
    print("quick: good" if good else f"quick: below {LEAST_ACCURACY} % or above 3 GB")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
