"""Every reader of something from outside stands spoilt input, and the fuzzer would see if not.

`make fuzz` gives each reader 23,000 inputs; pytest's --hypothesis-seed decides which.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from support.fuzz import guard
from support.fuzz.guard import EscapeError, HangError, address_space, stand
from support.fuzz.target import Target
from support.fuzz.targets import TARGETS
from thawnet.core.errors import DataError
from thawnet.core.memory import PeakMemory, used_memory

INPUTS = int(os.environ.get("FUZZ_INPUTS", "300"))
OUTSIDE = Path("/tmp/thawnet-fuzz-outside")


class FakeError(Exception):
    """A refusal whose text is not made safe."""


class Fake(Target):
    """Does what its input says."""

    file = "input"
    refusals = (DataError, FakeError)

    def read(self, path: Path) -> None:
        word = path.read_text()
        if word == "refuse":
            raise DataError("one sentence")
        if word == "mumble":
            raise FakeError("\x1b[31m")
        if word == "crash":
            raise ValueError("no refusal")
        if word == "hang":
            while True:
                pass
        if word == "slow":
            time.sleep(0.3)  # takes no processor time
        if word == "write":
            OUTSIDE.write_text("x")
        if word == "start":
            subprocess.run(["true"], check=True)


@pytest.mark.parametrize(("word", "accepted"), [("nothing", 1), ("refuse", 0), ("slow", 1)])
def test_what_is_accepted_or_refused_is_no_failure(
    tmp_path: Path, word: str, accepted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "SECONDS", 0.1)
    assert stand(Fake(tmp_path), word.encode()) == accepted


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("crash", ValueError),
        ("hang", HangError),
        ("mumble", AssertionError),
        ("write", EscapeError),
        ("start", EscapeError),
    ],
)
def test_anything_else_is_a_failure(tmp_path: Path, word: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        stand(Fake(tmp_path), word.encode())
    assert not OUTSIDE.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS, ids=lambda kind: kind.__name__.lower())
def test_every_reader_stands_spoilt_input(
    kind: type[Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = kind(tmp_path / "folder")
    target.folder.mkdir()
    for variable in ("HOME", "TMPDIR"):
        monkeypatch.setenv(variable, str(target.folder))
    monkeypatch.setenv("THAWNET_CACHE", str(target.folder / "cache"))
    monkeypatch.chdir(target.folder)
    seeds, accepted = target.seeds(), 0
    for valid in seeds:  # the first brings imports and pools
        with suppress(*target.refusals):
            target.run(valid)
            accepted += 1
    assert accepted > len(seeds) / 2

    @settings(
        max_examples=INPUTS, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(target.inputs())
    def stands(content: bytes) -> None:
        stand(target, content)

    before = used_memory()
    with address_space(), PeakMemory() as peak:
        stands()
    assert peak.bytes - before < target.megabytes * 1e6
