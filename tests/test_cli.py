"""The command: results on stdout, one line per mistake on stderr, exit statuses."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import thawnet
from support.commands import called, helps_of
from support.runs import tiny_call
from support.systems import POSIX
from thawnet import cli
from thawnet.commands.doctor import DoctorOptions
from thawnet.core.cache import building
from thawnet.core.errors import DiskFullError, WeightsError
from thawnet.data.reading import Reading
from thawnet.recipe import TrainOptions


def test_last_line_on_stdout_is_the_accuracy(
    photos: Callable[..., Path], tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 24, "b": 24})
    words = ("--recipe", "quick", "--compile", "no", "--out", "run")
    status, out, err = called(capsys, "train", *tiny_call(folder, tiny_weights), *words)
    assert status == 0, err
    assert out.startswith("for comparison: logistic regression on the frozen features ")
    assert out.splitlines()[-1].startswith("test accuracy: ")
    assert out.endswith("images)\n")
    assert "epoch    2 fine-tune" in err


def test_two_runs_are_compared_and_one_on_other_images_is_refused(
    photos: Callable[..., Path], tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 24, "b": 24})
    photos({"a": 24, "b": 24}, "others", start=100)
    others = folder.parent / "others"
    for seed, (name, data) in enumerate((("one", folder), ("two", folder), ("three", others))):
        words = ("--recipe", "quick", "--compile", "no", "--no-report", "--out", name)
        call = (*tiny_call(data, tiny_weights), *words, "--seed", str(seed))
        status, _, err = called(capsys, "train", *call)
        assert status == 0, err
    status, out, err = called(capsys, "compare", "one", "three")
    assert status == 1
    assert out == ""
    assert "were measured on different test images: data set 'photos' against 'others'" in err
    assert not Path("compare.png").exists()
    status, out, err = called(capsys, "compare", "one", "two", "--out", "both.png")
    assert status == 0, err
    assert err == "picture both.png\n"
    assert "photos: 8 test images, the same for both" in out
    assert re.search(r"^recipe seed +0  1$", out, re.MULTILINE)
    assert re.search(r", McNemar p = [\d.]+ on 8 test images$", out.splitlines()[-1])
    assert Path("both.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("train", "nowhere"), 1, "no data at 'nowhere'"),
        (("train", "digits", "--recipe", "quik"), 2, "did you mean 'quick'?"),
        (
            ("train", "digits", "--backbone", "mobilenetv2"),
            2,
            "timm has no such model; did you mean 'mobilenetv2_100'?",
        ),
        (("train", "digits", "--train-from", "block_99"), 2, "no such layer"),
        (("train", "digits", "--weights", "nowhere.st"), 1, "no such file"),
        (("train", "digits", "--epochs", "0", "1"), 2, "epochs = 0: must be at least 1"),
        (("train", "digits", "--device", "cuda"), 2, "sees no CUDA device"),
        (("train", "--resume"), 1, "no unfinished run"),
        (("compare", "nowhere", "elsewhere"), 1, "'nowhere': no such folder"),
        (("compare", ".", "./"), 2, "are the same run"),
        (("compare", "a", "b", "--out", "a.pdf"), 2, "the picture is a PNG"),
    ],
)
def test_mistake_is_one_line_and_a_status(
    arguments: tuple[str, ...], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    got, out, err = called(capsys, *arguments)
    assert got == status
    assert out == ""
    assert told in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not Path("runs").exists()


def test_unknown_flag_is_a_wrong_call_and_the_near_one_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "digits", "--epoch", "3"])
    assert caught.value.code == 2
    assert "--epochs HEAD FINE-TUNE" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_overview_says_what_to_do_first_and_a_line_for_each_command(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = called(capsys, *words)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert any(line.startswith("  thawnet train digits ") for line in lines)
    for name in cli.COMMANDS:
        (line,) = (line for line in lines if line.startswith(f"  {name} "))
        assert line.endswith(".")
    assert max(map(len, lines)) <= 100


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "--version") == (0, f"thawnet {thawnet.__version__}\n", "")


def test_mistyped_command_is_answered_with_the_near_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, err = called(capsys, "trian", "digits")
    assert (status, out) == (2, "")
    assert err == "thawnet: 'trian': no such command; did you mean 'train'?\n"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_option_has_help(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, _ = cli.COMMANDS[command]
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = " ".join(re.sub("[│|]", " ", capsys.readouterr().out).split())
    assert not re.search("None|--no-no-", shown)
    helps = helps_of(options)
    if options is DoctorOptions:  # what it adds to those of `train`
        helps |= helps_of(TrainOptions)
        del helps["train"]
    if helps.pop("reading", None):  # a table of flags of its own
        helps |= helps_of(Reading)
    assert helps
    for name, text in helps.items():
        assert text.strip(), f"{name} is not described"
        beginning = " ".join(text.split()[:4])
        assert beginning in shown, name


def test_resume_may_stand_alone() -> None:
    assert cli.fill_resume(["train", "--resume"]) == ["train", "--resume", ""]
    assert cli.fill_resume(["--resume", "--seed", "1"]) == ["--resume", "", "--seed", "1"]
    assert cli.fill_resume(["--resume", "runs/x"]) == ["--resume", "runs/x"]


def test_cache_is_listed_and_cleared_but_for_what_is_being_built(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for name in ("features/abc", "stores/.stopped.part", "stores/.growing.part"):
        (cache / name).mkdir(parents=True)
        (cache / name / "pixels.bin").write_bytes(bytes(1_000_000))
        (cache / name / ".note-0.json").touch()
    with building(cache / "stores" / "growing", lambda text: None):
        _, out, _ = called(capsys, "cache", "list")
        assert "1.0 MB  features/abc\n" in out
        assert "1.0 MB  stores/.stopped.part (unfinished)\n" in out
        assert out.endswith(f"3.0 MB  in 3 entries under {cache}\n")
        status, out, err = called(capsys, "cache", "clear")
        assert (status, out) == (0, f"removed 2.0 MB from {cache}\n")
        growing = cache / "stores" / ".growing.part"
        assert err == f"{growing} stays: another process is building it\n"
    assert [path.name for path in (cache / "stores").iterdir()] == ["growing"]
    assert not (cache / "features" / "abc").exists()


def test_inspect_reports_on_stdout_and_problems_are_no_failure(
    photos: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 6, "b": 6}, "d/train").parent
    photos({"a": 6, "b": 6}, "d/test")  # the same pictures
    (folder / "train" / "a" / "broken.png").touch()
    status, out, err = called(capsys, "inspect", str(folder))
    assert status == 0
    assert err.startswith("the test part's images are looked at for duplicates and damage only")
    assert out.startswith("d: 25 images in 2 classes\n")
    assert " 1. 12 test images of 12 (100 %) are in train too: 12 pixel for pixel" in out
    assert "Copies, worst first, 10 of 12; --json lists all" in out
    assert "broken.png (the file is empty (0 bytes))" in out
    assert max(map(len, out.splitlines())) <= 100
    assert "\x1b" not in out


def test_inspect_prints_one_json_object(
    photos: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = called(capsys, "inspect", str(photos({"a": 4, "b": 4})), "--json")
    assert status == 0
    assert json.loads(out)["parts"][0]["counts"] == {"a": 4, "b": 4}


def test_inspect_summarises_many_classes(
    photos: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({f"class{number:02d}": 1 + number // 10 for number in range(50)})
    status, out, _ = called(capsys, "inspect", str(folder))
    assert status == 0
    assert "smallest classes: class00 1, class01 1, class02 1, class03 1, class04 1\n" in out
    assert "largest classes:  class49 5, class48 5, class47 5, class46 5, class45 5\n" in out
    assert len(out.splitlines()) < 40


def test_inspect_of_nothing_fails_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capsys, "inspect", "nowhere")
    assert (status, out) == (1, "")
    assert err.startswith("thawnet: no data at 'nowhere'")
    assert called(capsys, "inspect", "digits", "--size", "0")[0] == 2


def test_inspect_needs_no_torch(photos: Callable[..., Path]) -> None:
    code = "import sys, thawnet.cli as c; c.main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    folder = str(photos({"a": 2, "b": 2}))
    done = subprocess.run([sys.executable, "-c", code, "inspect", folder], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "way",
    [
        "exec('raise KeyboardInterrupt')",
        pytest.param("os.kill(os.getpid(), 15)", marks=POSIX),
    ],
)
def test_status_is_that_of_the_stop_wherever_it_struck(way: str) -> None:
    code = f"import os, sys, thawnet.cli as c; sys.exit(c.guarded(lambda: exec({way!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143 if "kill" in way else 130, "thawnet: stopped\n")


@POSIX
def test_stop_waits_for_the_end_of_an_import(tmp_path: Path) -> None:
    tmp_path.joinpath("slow.py").write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(0.3)\n"
        "print('imported', flush=True)\n"
    )
    code = (
        "import importlib, sys, time, thawnet.cli as c\n"
        "job = lambda: (importlib.import_module('slow'), time.sleep(60))\n"
        "sys.exit(c.guarded(job))"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "imported\n", "thawnet: stopped\n")
    assert time.monotonic() - began < 50  # what the job waited for did not come


class Stops:
    """A class that is stopped while it is made."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def fail_to_import() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error


def make_a_class() -> None:
    try:
        type("Made", (), {"field": Stops()})
    except KeyboardInterrupt as error:  # newer Pythons wrap nothing
        raise RuntimeError("Error calling __set_name__") from error


@pytest.mark.parametrize("job", [fail_to_import, make_a_class])
def test_stop_that_was_taken_for_a_failure_is_a_stop(
    job: Callable[[], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    assert cli.guarded(job) == 130
    assert "stopped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (WeightsError("not a readable file"), 130, "thawnet: stopped\n"),
        (RuntimeError("could not determine the shape"), 130, "thawnet: stopped\n"),
        (DiskFullError("the disk is full"), 1, "thawnet: the disk is full\n"),
    ],
)
def test_stop_that_c_code_has_replaced_by_an_error_is_a_stop(
    error: Exception, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def job() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
            time.sleep(10)
        raise error

    assert cli.guarded(job) == status
    assert capsys.readouterr().err == said
