"""A handful of the kills that `make soak` does a hundred of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.shared import FLOWERS, SHARED

pytestmark = pytest.mark.slow
SOAK = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


def test_runs_killed_at_random_moments_end_with_the_bits_of_runs_left_alone() -> None:
    only = "photos quick" if FLOWERS.is_dir() else "digits quick"
    done = subprocess.run(
        [
            *(sys.executable, str(SOAK), "--kills", "6", "--kills-per-run", "3"),
            *("--only", only, "--shared", str(SHARED)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ending = re.fullmatch(
        r"(\d+) kills, 0 lost, 0 different, 0 stuck", done.stdout.splitlines()[-1]
    )
    assert ending, done.stdout
    assert int(ending[1]) >= 6
