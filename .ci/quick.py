"""Run `quick` on all of CIFAR-100 from empty caches; fail below 75.0 % or above 3 GB.

Memory is the anonymous resident memory of the whole process tree, read four times a second.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from memory import Memory

LEAST_ACCURACY = 75.0
MOST_MEMORY = 3e9


def main() -> int:
    shared = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            *(sys.executable, "-m", "thawnet", "train", "cifar100", "--recipe", "quick"),
            *("--data-dir", str(shared / "data" / "cifar100")),
            *("--weights", str(shared / "weights" / "mobilenetv2_100_imagenet.safetensors")),
            *("--out", str(Path(scratch) / "run"), *sys.argv[2:]),
        ]
        environment = {**os.environ, "THAWNET_CACHE": str(Path(scratch) / "cache")}
        start = time.monotonic()
        job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        memory = Memory(job.pid)
        memory.start()
        output, _ = job.communicate()
        seconds = time.monotonic() - start
        peak = memory.stop()
    print(output, end="")
    match = re.search(r"test accuracy: ([\d.]+) %", output)
    accuracy = float(match[1]) if match else 0.0
    print(f"wall time {seconds:.0f} s, peak anonymous memory {peak / 1e9:.2f} GB")
    good = job.returncode == 0 and accuracy >= LEAST_ACCURACY and peak < MOST_MEMORY
    print("quick: good" if good else f"quick: below {LEAST_ACCURACY} % or above 3 GB")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
