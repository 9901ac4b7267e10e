"""The command as a process of its own: the demo, a real Ctrl-C, and main.py."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.awaiting import lines_of, wait_until
from support.runs import tiny_call, write_random_weights

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def done(*words: str, **variables: str) -> str:
    """Run Python with these words, to a good end, and return what was printed on stdout."""
    job = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        check=False,
    )
    assert job.returncode == 0, job.stderr
    return job.stdout


def test_digits_reach_98_percent_with_no_download() -> None:
    out = done("-m", "thawnet", "train", "digits", HF_HUB_OFFLINE="1")
    match = re.search(r"^test accuracy: ([\d.]+) %.*images\)$", out, re.MULTILINE)
    assert match, out
    assert float(match[1]) >= 98.0
    assert Path("runs/digits-quick-1/history.png").stat().st_size > 10_000


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_process_says_how_to_go_on_and_does(
    number: signal.Signals, status: int, photos: Callable[..., Path], tiny_weights: Path
) -> None:
    command = ("-m", "thawnet", "train")
    short = tiny_call(photos({"a": 60, "b": 60}), tiny_weights, (3, 40))
    job = subprocess.Popen([sys.executable, *command, *short], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: lines_of(Path("runs/photos-quick-1/log.jsonl")) >= 3, 240)
    job.send_signal(number)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == status, errors
    assert "Traceback" not in errors
    assert re.search(
        r"epochs?( and \d+ steps?)? (is|are) kept: thawnet train --resume runs/photos-quick-1$",
        errors.strip(),
    )
    assert done(*command, "--resume").splitlines()[-1].startswith("test accuracy: ")


def test_main_trains_the_reference_and_leaves_its_plot(
    photos: Callable[..., Path], tmp_path: Path
) -> None:
    weights = write_random_weights(tmp_path / "weights.safetensors", "mobilenetv2_100", "same")
    call = ("--weights", str(weights), "--epochs", "1", "1", "--size", "32")
    out = done(str(ROOT / "main.py"), str(photos({"a": 20, "b": 20})), *call)
    assert re.search(r"^test accuracy: .* images\)$", out, re.MULTILINE)
    assert Path("advanced_training_history.png").stat().st_size > 10_000
    assert Path("runs/photos-seed-1/recipe.toml").exists()
