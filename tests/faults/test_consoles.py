"""Odd consoles: encodings without a letter, streams closed or full, terminals that left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.fuzz.bundle import network, write_bundle
from support.photos import draw
from support.systems import LINUX, POSIX
from thawnet.bundle.meaning import Meaning
from thawnet.core import console


def command(*words: object, **variables: str) -> list[str]:
    return [sys.executable, "-m", "thawnet", *map(str, words)]


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a network that knows the class \u732b, and a photo."""
    from support.fuzz import bundle

    folder = tmp_path_factory.mktemp("cat")
    with pytest.MonkeyPatch.context() as patch:
        meaning = Meaning(("\u732b", "\u732b\u732b"), bundle.MEANING.preprocess, 1.0)
        patch.setattr(bundle, "MEANING", meaning)
        write_bundle(folder / "bundle", network())
    draw(0, 0).save(folder / "one.png")
    return folder / "bundle", folder / "one.png"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "cp932", "utf-8"])
@pytest.mark.parametrize("form", ["", "--json", "--csv"])
def test_class_that_an_encoding_lacks_is_escaped(
    cat: tuple[Path, Path], encoding: str, form: str
) -> None:
    bundle, photo = cat
    words = command("predict", photo, "--model", bundle, *filter(None, [form]))
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(words, capture_output=True, env=environment, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    text = done.stdout.decode(encoding)
    known = encoding in ("cp932", "utf-8") and form != "--json"
    assert ("\u732b" if known else "\\u732b") in text


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp932"])
def test_help_reaches_pipes_of_any_encoding(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for words, said in ((("--help",), "Commands:"), (("train", "--help"), "usage: thawnet")):
        done = subprocess.run(command(*words), capture_output=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert said in done.stdout.decode(encoding)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@POSIX
def test_closed_streams_are_no_reason_to_fail(cat: tuple[Path, Path], closed: str) -> None:
    bundle, photo = cat
    line = f"{sys.executable} -m thawnet predict {photo} --model {bundle} --out out.csv --csv"
    done = subprocess.run(["sh", "-c", f"{line} {closed}"], capture_output=True, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert Path("out.csv").read_text(encoding="utf-8").count("\n") == 3


@POSIX
def test_list_on_a_closed_stdin_is_a_sentence(cat: tuple[Path, Path]) -> None:
    line = f"{sys.executable} -m thawnet predict - --model {cat[0]} <&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "thawnet: -: stdin is closed; name the images, or give the list in a pipe",
    )


@LINUX
def test_stderr_on_a_full_disk_stops_nothing(cat: tuple[Path, Path]) -> None:
    bundle, photo = cat
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("predict", photo, "--model", bundle),
            stdout=subprocess.PIPE, stderr=full, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith(str(photo).encode())


def test_terminal_that_went_away_stops_nothing() -> None:
    code = "import time; from thawnet.core import console; console.say('one'); open('ready', 'w'); "
    code += "[time.sleep(0.05) for _ in range(40) if not __import__('os').path.exists('gone')]; "
    code += "console.say('two')\nwith console.progress('three', 9) as advance: advance(9)\n"
    leader, follower = pytest.importorskip("pty").openpty()
    running = subprocess.Popen([sys.executable, "-c", code], stderr=follower, stdin=follower)
    os.close(follower)
    while not Path("ready").exists():
        assert running.poll() is None
        time.sleep(0.02)
    os.close(leader)
    Path("gone").touch()
    assert running.wait(30) == 0


def test_dumb_terminal_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pytest.importorskip("pty").openpty()
    code = "from thawnet.core import console\nwith console.progress('x', 9) as go: go(9)\n"
    environment = {**os.environ, "TERM": "dumb"}
    subprocess.run([sys.executable, "-c", code], stderr=follower, env=environment, check=True)
    os.close(follower)
    os.set_blocking(leader, False)
    with pytest.raises((BlockingIOError, OSError)):
        os.read(leader, 1000)
    os.close(leader)


def test_prepared_streams_stay_as_they_were_but_for_what_they_cannot_write() -> None:
    before = (sys.stdout, sys.stderr)
    console.prepare()
    assert (sys.stdout, sys.stderr) == before


def test_notebook_gets_a_line_that_is_written_over_and_no_codes() -> None:
    code = """import time
from thawnet.core import console
console.LINE_SECONDS = 0.0
with console.progress("decoding", 3000) as advance:
    for _ in range(3):
        time.sleep(0.05)
        advance(1000)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True,
        env={**os.environ, "JPY_PARENT_PID": "1"},
    )  # fmt: skip
    shown = done.stderr.decode()
    assert "\x1b" not in shown
    states = shown.split("\r")
    assert states[1].startswith("decoding: 1,000 of 3,000, ")
    assert states[1].rstrip().endswith("s left")
    assert [state.strip() for state in states[-2:]] == ["", ""]  # it is gone in the end


def test_log_gets_a_line_of_progress_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 59.0, 61.0, 90.0, 122.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.progress("decoding", 3000) as advance:
        for _ in range(4):
            advance(500)
    assert capsys.readouterr().err.splitlines() == [
        "decoding: 1,000 of 3,000, 2 min 02 s left",
        "decoding: 2,000 of 3,000, 61 s left",
    ]


def test_log_of_a_download_counts_megabytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "LOG_SECONDS", 0.0)
    with console.progress("downloading x", None, "bytes") as advance:
        advance(2_500_000)
    assert capsys.readouterr().err == "downloading x: 2.5 MB\n"
