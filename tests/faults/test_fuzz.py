"""Every reader of something from outside stands spoilt input, and the fuzzer would see if not.

`make fuzz` gives each reader 20,000 inputs; pytest's --hypothesis-seed decides which.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.fuzz import guard
from support.fuzz.guard import EscapeError, HangError, address_space, stand
from support.fuzz.mutate import mutated, toml
from support.fuzz.target import Target
from support.fuzz.targets import TARGETS
from thawnet.core.errors import DataError
from thawnet.core.memory import PeakMemory, used_memory
from thawnet.recipe import load_recipe, parse_recipe, to_table

INPUTS = int(os.environ.get("FUZZ_INPUTS", "300"))


class Fake(Target):
    """Does what its input says."""

    name = "fake"
    seeds = (b"seed",)

    def run(self, content: bytes) -> None:
        word = content.decode()
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
            (self.folder / "inside").write_text("x")
            Path("/tmp/thawnet-fuzz-outside").write_text("x")
        if word == "start":
            subprocess.run(["true"], check=True)


class FakeError(Exception):
    """A refusal whose text is not made safe."""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setattr(guard, "SECONDS", 0.1)
    monkeypatch.setattr(Fake, "refusals", (DataError, FakeError))
    return Fake(tmp_path)


@pytest.mark.parametrize(("word", "accepted"), [("nothing", 1), ("refuse", 0), ("slow", 1)])
def test_what_is_accepted_or_refused_is_no_failure(fake: Fake, word: str, accepted: int) -> None:
    assert stand(fake, word.encode()) == accepted


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
def test_anything_else_is_a_failure(fake: Fake, word: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        stand(fake, word.encode())
    assert not Path("/tmp/thawnet-fuzz-outside").exists()


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_follow_from_the_seed_and_seeds_are_valid(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAWNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(time, "time", itertools.count(time.time()).__next__)  # a second per look
    one, other = (TARGETS[name](tmp_path) for _ in range(2))
    for seed in range(5):
        assert one.make(random.Random(seed)) == other.make(random.Random(seed))
    assert one.make(random.Random(0)) != one.make(random.Random(1))
    accepted = 0
    for valid in one.seeds:
        with suppress(*one.refusals):
            one.run(valid)
            accepted += 1
    assert accepted > len(one.seeds) / 2


def test_recipes_are_written_as_toml_that_is_read_back() -> None:
    recipe = load_recipe("quick")
    assert parse_recipe(toml(to_table(recipe)), "x") == recipe


def test_mutations_change_the_content() -> None:
    rng = random.Random(0)
    seeds = [bytes(range(200)), bytes(200)]
    assert len({mutated(rng, seeds, ()) for _ in range(100)}) > 90


@pytest.fixture(params=TARGETS)
def target(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Target:
    """Return a reader that has read all its valid inputs: imports and pools come with the first."""
    found = TARGETS[request.param](tmp_path / "folder")
    found.folder.mkdir()
    for variable in ("HOME", "TMPDIR"):
        monkeypatch.setenv(variable, str(found.folder))
    monkeypatch.setenv("THAWNET_CACHE", str(found.folder / "cache"))
    monkeypatch.chdir(found.folder)
    for valid in found.seeds:
        with suppress(*found.refusals):
            found.run(valid)
    return found


def stands(target: Target, content: bytes) -> None:
    (target.folder.parent / "input").write_bytes(content)  # what a crash leaves
    stand(target, content)


@pytest.mark.slow
def test_every_reader_stands_spoilt_input(target: Target) -> None:
    @settings(
        max_examples=INPUTS, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(rng=st.randoms(use_true_random=True))
    def spoilt(rng: random.Random) -> None:
        stands(target, target.make(rng))

    before = used_memory()
    with address_space(), PeakMemory() as peak:
        spoilt()
    assert peak.bytes - before < target.megabytes * 1e6


@pytest.mark.slow
def test_any_splice_of_valid_inputs_and_any_bytes_are_read_or_refused(target: Target) -> None:
    @settings(deadline=None, database=None)
    @given(data=st.data())
    def spliced(data: st.DataObject) -> None:
        valid = data.draw(st.sampled_from(target.seeds))
        begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(valid))] * 2)))
        stands(target, valid[:begin] + data.draw(st.binary(max_size=40)) + valid[end:])

    spliced()
