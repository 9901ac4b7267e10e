"""The fuzzer sees what it is there to see, and every reader stands some of its inputs."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuzz
from fuzz_mutate import mutated, toml
from fuzz_target import Target
from fuzz_targets import TARGETS
from thawnet.core.errors import DataError
from thawnet.core.text import printable
from thawnet.recipe import load_recipe, parse_recipe, to_table

SCRIPT = Path(fuzz.__file__)


class Fake(Target):
    """Does what its input says."""

    name = "fake"
    seeds = (b"seed",)

    def run(self, content: bytes) -> None:
        word = content.decode()
        if word == "refuse":
            raise DataError("one sentence")
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


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that runs one input and gives the tally."""
    monkeypatch.setattr(fuzz, "SECONDS", 0.1)
    before = signal.signal(signal.SIGPROF, fuzz._hang)

    def run(word: str) -> fuzz.Tally:
        tally = fuzz.Tally()
        fuzz._one(Fake(tmp_path), 7, word.encode(), tally)
        return tally

    yield run
    signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("word", ["nothing", "refuse", "slow"])
def test_what_is_accepted_or_refused_is_no_failure(fake: Any, word: str) -> None:
    tally = fake(word)
    assert tally.failures == []
    assert (tally.accepted, sum(tally.refused.values())) == ((0, 1) if word == "refuse" else (1, 0))


@pytest.mark.parametrize(
    ("word", "told"), [("crash", "ValueError: 'no"), ("hang", "Hang: 'over 0.1")]
)
def test_an_error_or_a_hang_is_a_failure(fake: Any, word: str, told: str) -> None:
    ((number, why),) = fake(word).failures
    assert number == 7
    assert why.startswith(told)


@pytest.mark.parametrize("word", ["write", "start"])
def test_what_leaves_the_folder_is_a_failure(tmp_path: Path, word: str) -> None:
    # In a process of its own: an audit hook stays for ever.
    code = (
        "import sys, fuzz, test_fuzz\n"
        "from pathlib import Path\n"
        "folder, tally = Path(sys.argv[1]), fuzz.Tally()\n"
        "with fuzz.guarded(folder):\n"
        "    fuzz._one(test_fuzz.Fake(folder), 0, sys.argv[2].encode(), tally)\n"
        "print(tally.failures)"
    )
    paths = os.pathsep.join([str(SCRIPT.parent), str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), word],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert "Escape" in done.stdout
    assert not Path("/tmp/thawnet-fuzz-outside").exists()


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_follow_from_seed_and_number_and_seeds_are_valid(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.environ["THAWNET_CACHE"] = str(tmp_path / "cache")
    monkeypatch.setattr(time, "time", itertools.count(time.time()).__next__)  # a second per look
    one, other = (TARGETS[name](tmp_path) for _ in range(2))
    assert [fuzz.input_of(one, 3, number) for number in range(5)] == [
        fuzz.input_of(other, 3, number) for number in range(5)
    ]
    assert fuzz.input_of(one, 3, 0) != fuzz.input_of(one, 4, 0)
    accepted = 0
    for seed in one.seeds:
        try:
            one.run(seed)
            accepted += 1
        except one.refusals:
            pass
    assert accepted > len(one.seeds) / 2


def test_recipes_are_written_as_toml_that_is_read_back() -> None:
    recipe = load_recipe("quick")
    assert parse_recipe(toml(to_table(recipe)), "x") == recipe


def test_mutations_change_the_content() -> None:
    rng = random.Random(0)
    seeds = [bytes(range(200)), bytes(200)]
    assert len({mutated(rng, seeds, ()) for _ in range(100)}) > 90


@pytest.mark.slow
def test_every_reader_stands_some_inputs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--inputs", "300", "--seed", "5", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert f"{300 * len(TARGETS):,} inputs in" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_any_splice_of_valid_inputs_and_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    target = TARGETS[name](tmp_path_factory.getbasetemp() / "hypothesis")
    target.folder.mkdir(exist_ok=True)
    os.environ["THAWNET_CACHE"] = str(target.folder / "cache")
    seed = data.draw(st.sampled_from(target.seeds))
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(seed))] * 2)))
    content = seed[:begin] + data.draw(st.binary(max_size=40)) + seed[end:]
    told = ""
    try:
        target.run(content)
    except target.refusals as error:
        told = str(error)
    assert told == printable(told)
