"""Every command that is printed works when it is pasted into a shell, whatever the folders' names.

The shell is a real one; `thawnet` on its PATH tells the words that arrive, which then go to the
command line here.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.patches import stop_after
from support.runs import tiny_call
from support.systems import POSIX
from thawnet import cli, job
from thawnet.commands import doctor, serve
from thawnet.core import packages, text
from thawnet.core.errors import RankLostError, RunError, ThawnetError
from thawnet.recipe import TrainOptions
from thawnet.report.run_reader import read_finished
from thawnet.training import phase, run_folder
from thawnet.training.ranks import Ranks, World, losses_told

pytestmark = POSIX  # the shell
DATA = "meine Bücher fotos"
Paste = Callable[[str], list[str]]


@pytest.fixture
def paste(
    tmp_path: Path, options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[str]]:
    """Work in 'Löwen & Äpfel', and return a function from a printed command to its words."""
    here = tmp_path / "Löwen & Äpfel"
    here.mkdir()
    monkeypatch.chdir(here)
    Path(str(options.data)).rename(DATA)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("thawnet", "pip"):
        program = programs / name
        program.write_text(
            f"#!{sys.executable} -IS\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
        )
        program.chmod(0o755)
    shell = shutil.which("bash") or "sh"

    def words(line: str) -> list[str]:
        done = subprocess.run(
            [shell, "-c", line],
            env={"PATH": str(programs), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
        return json.loads(done.stdout)

    return words


def commands(told: str) -> list[str]:
    """Return the commands in what was printed: to the end of their line, or of their quotes."""
    return re.findall(r"(?<!`)thawnet [a-z]+ .*$|(?<=`)thawnet [a-z]+ [^`]*(?=`)", told, re.M)


def train_words(options: TrainOptions) -> list[str]:
    """Return the words of a call of `train` on DATA."""
    typed = tiny_call(DATA, Path(str(options.weights)))
    return ["train", *typed, "--recipe", "quick", "--precision", "float32", "--compile", "no"]


def begun(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a run on DATA and stop it at its third save."""
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert cli.main(train_words(options)) == 130


def test_a_run_is_resumed_reported_and_used_by_the_commands_it_prints(
    options: TrainOptions,
    paste: Paste,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    begun(options, monkeypatch)
    (resume,) = commands(capfd.readouterr().err)
    with monkeypatch.context() as patch:
        patch.setattr(job, "write_report", functools.partial(_fail, OSError("no room")))
        assert cli.main(paste(resume)) == 0
    report, use, page = commands(capfd.readouterr().err)
    assert paste(page)[:2] == ["serve", "--model"]
    assert cli.main(paste(report)) == 0
    assert Path("runs", f"{DATA}-quick-1", "report.html").is_file()
    capfd.readouterr()
    assert cli.main([DATA if word == "IMAGES" else word for word in paste(use)]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 72


def _fail(error: Exception, *_: object) -> None:
    raise error


def test_errors_name_the_run_so_that_it_can_be_resumed(
    options: TrainOptions,
    paste: Paste,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = Path("runs", f"{DATA}-quick-1")
    folder.mkdir(parents=True)
    (folder / "recipe.toml").touch()
    assert cli.main(["compare", str(folder), "elsewhere"]) == 1
    (resume,) = commands(capfd.readouterr().err)
    assert paste(resume) == ["train", "--resume", str(folder)]

    fragments: list[str] = []
    with pytest.raises(RunError) as taken:
        run_folder.require_free(folder)
    fragments.append(str(taken.value).rpartition(": thawnet train ")[2])
    with pytest.raises(RankLostError) as lost, losses_told(World(Ranks(0, 2)), folder):
        raise RuntimeError("[gloo] Connection closed by peer")
    fragments.append(str(lost.value).rpartition(" with ")[2])
    with monkeypatch.context() as patch:
        patch.setattr(phase, "evaluate", functools.partial(_fail, torch.OutOfMemoryError("2 GiB")))
        assert cli.main([*train_words(options), "--out", "zwei Läufe"]) == 1
    (full,) = commands(capfd.readouterr().err)
    fragments.append(full.removeprefix("thawnet train "))
    pasted = [paste(f"thawnet train {each}") for each in fragments]
    assert pasted == [["train", "--resume", str(each)] for each in (folder, folder, "zwei Läufe")]


def test_a_call_is_recorded_and_repeated_as_it_was_typed(
    options: TrainOptions, paste: Paste, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Path("`gewichte` | $HOME.safetensors")
    shutil.copy(str(options.weights), weights)
    typed = [*train_words(replace(options, weights=str(weights))), "--no-report"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/thawnet", *typed])
    assert cli.main(typed) == 0
    folder = Path("runs", f"{DATA}-quick-1")
    told = json.loads((folder / "result.json").read_text())["command"]
    assert paste(told) == typed
    card = (folder / "bundle" / "README.md").read_text(encoding="utf-8")
    printed = re.search(r"^\| command \| (`+) ?(.*?) ?\1 \|$", card, re.MULTILINE)
    assert printed
    assert paste(printed[2].replace(r"\|", "|")) == typed  # as Markdown shows a cell of a table
    assert paste(doctor.command(replace(options, data=DATA)))[:2] == ["train", DATA]


def test_packages_are_installed_by_the_line_that_names_them(paste: Paste) -> None:
    for line in (packages.INSTALL, serve.INSTALL):
        assert re.fullmatch(r"thawnet\[(train|serve)\]", paste(line)[1])


@pytest.mark.parametrize(
    "name",
    [
        "my photos",
        'it\'s 5$ & `free`; "really" \\ *',
        "-",
        "",
        "no\u00a0break",
        "zero\u200dwidth, 2\u200c2",  # as in Persian names and in emoji
        "tab\tand\nline",
        "\udce4pfel",  # of a system that wrote Latin-1
        "\x1b[31mred",
        ":cat: [bold]",
        "lang " * 800,  # 4,000 bytes; Linux takes paths of 4,096
    ],
)
def test_any_name_survives_messages_and_the_terminal(
    name: str, paste: Paste, capfd: pytest.CaptureFixture[str]
) -> None:
    command = text.command_line("thawnet", "train", "--resume", name)
    message = f"'{name}' is not finished; continue it: {command}"

    def job() -> None:
        raise ThawnetError(message)

    assert cli.guarded(job) == 1
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1
    (line,) = commands(printed)
    assert paste(line) == ["train", "--resume", name]


def test_windows_gets_its_own_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert text.command_line("thawnet", "predict", Path("my photos")) == (
        'thawnet predict "my photos"'
    )


def test_a_folder_without_a_run_is_no_reason_to_throw_one_away(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def told(folder: str) -> str:
        assert cli.main(["train", "--resume", folder]) == 1
        return capfd.readouterr().err

    assert told("nowhere") == (
        "thawnet: --resume 'nowhere': no such folder; name a run folder, as in runs/digits-full-1\n"
    )
    (Path("runs", f"{DATA}-quick-1") / run_folder.STATE).parent.mkdir(parents=True)
    (Path("runs", f"{DATA}-quick-1") / run_folder.STATE).touch()
    # As the shell gives the beginning of a name that was not quoted.
    name = f"runs/{DATA}-quick-1"
    assert told("runs/meine") == (
        f"thawnet: --resume 'runs/meine': no such folder; known are '{name}'\n"
    )
    Path("runs/leer").mkdir()
    assert told("runs/leer").startswith(
        "thawnet: --resume 'runs/leer': no run can be resumed from this folder: "
        "it has no checkpoint/state.pt; "
    )
    with pytest.raises(RunError) as finished:
        read_finished(Path("runs/leer"))
    assert "--resume" not in str(finished.value)
