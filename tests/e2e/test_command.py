"""The command as a process of its own: the demo, a real Ctrl-C, and main.py."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.runs import tiny_call, write_random_weights

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def test_digits_reach_98_percent_with_no_download() -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "thawnet", "train", "digits"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    match = re.search(r"^test accuracy: ([\d.]+) %.*images\)$", done.stdout, re.MULTILINE)
    assert match, done.stdout
    assert float(match[1]) >= 98.0
    assert Path("runs/digits-quick-1/history.png").stat().st_size > 10_000


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_process_says_how_to_go_on_and_does(
    number: signal.Signals, status: int, photos: Callable[..., Path], tiny_weights: Path
) -> None:
    command = [sys.executable, "-m", "thawnet", "train"]
    short = tiny_call(photos({"a": 60, "b": 60}), tiny_weights, (3, 40))
    job = subprocess.Popen([*command, *short], stderr=subprocess.PIPE, text=True)
    log = Path("runs/photos-quick-1/log.jsonl")
    end = time.monotonic() + 240
    while not (log.exists() and log.read_text().count("\n") >= 3) and time.monotonic() < end:
        time.sleep(0.1)
    job.send_signal(number)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == status, errors
    assert "Traceback" not in errors
    assert re.search(
        r"epochs?( and \d+ steps?)? (is|are) kept: thawnet train --resume runs/photos-quick-1$",
        errors.strip(),
    )
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("test accuracy: ")


def test_main_trains_the_reference_and_leaves_its_plot(
    photos: Callable[..., Path], tmp_path: Path
) -> None:
    weights = write_random_weights(tmp_path / "weights.safetensors", "mobilenetv2_100", "same")
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "main.py"), str(photos({"a": 20, "b": 20}))),
            *("--weights", str(weights), "--epochs", "1", "1", "--size", "32"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^test accuracy: .* images\)$", done.stdout, re.MULTILINE)
    assert Path("advanced_training_history.png").stat().st_size > 10_000
    assert Path("runs/photos-seed-1/recipe.toml").exists()
