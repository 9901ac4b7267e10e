"""A timed process is watched from its start, and what it printed is found again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import runs
from memory import Memory, anonymous_memory
from runs import ROOT, RunFailed, as_typed, emptied, json_lines, timed
from support.systems import LINUX, POSIX

EPOCHS = """
import json, time
for epoch in (1, 2):
    time.sleep(0.4)
    print(json.dumps({"epoch": epoch, "val_accuracy": epoch / 10}), flush=True)
time.sleep(0.4)
"""


def test_epochs_are_noted_as_they_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = timed([sys.executable, "-c", EPOCHS], tmp_path)
    first, second = ended.at
    assert 0.4 <= first < second < ended.wall
    assert second - first >= 0.25
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert ended.lines == [{"epoch": 1, "val_accuracy": 0.1}, {"epoch": 2, "val_accuracy": 0.2}]


def test_a_line_that_is_half_written_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    assert json_lines(file) == []
    file.write_text('{"epoch": 1}\n{"epoch":')
    assert json_lines(file) == [{"epoch": 1}]


def test_a_failure_shows_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no such data"):
        timed([sys.executable, "-c", "raise SystemExit('no such data')"], tmp_path)


@POSIX
def test_a_process_does_not_outlive_its_watcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path) -> list[dict[str, Any]]:
        if path.read_text():
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(runs, "json_lines", stop)
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        timed([sys.executable, "-c", code], tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "stdout.txt").read_text()), signal.SIG_DFL)


def test_a_command_is_shown_without_this_machine() -> None:
    command = [sys.executable, str(ROOT / "main.py"), "--out", str(ROOT.parent / "shared" / "x")]
    assert as_typed(command) == "python main.py --out ../shared/x"


def test_a_folder_is_empty_at_first_and_gone_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "scratch" / "of a killed process").mkdir(parents=True)
    with emptied(tmp_path / "scratch") as folder:
        assert list(folder.iterdir()) == []
        (folder / "big").write_text("x")
    assert not folder.exists()


TAKES = "import sys, time; held = b'x' * 60_000_000; print('held', flush=True); sys.stdin.read()"


@LINUX
def test_memory_is_that_of_the_whole_tree() -> None:
    # A grandchild, which another thread than the first one started.
    parent = (
        "import subprocess, sys, threading\n"
        f"run = lambda: subprocess.run([sys.executable, '-c', {TAKES!r}])\n"
        "thread = threading.Thread(target=run); thread.start(); thread.join()\n"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert job.stdin is not None
    assert job.stdout is not None
    watch = Memory(job.pid)
    watch.start()
    assert job.stdout.readline() == b"held\n"
    assert anonymous_memory(job.pid) >= 60_000_000
    time.sleep(0.6)  # two looks
    job.stdin.close()
    job.stdout.close()
    job.wait()
    assert watch.stop() >= 60_000_000
    assert anonymous_memory(job.pid) == 0
    assert watch not in threading.enumerate()
