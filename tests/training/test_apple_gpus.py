"""Apple's GPUs, which no test here has: a device that refuses what they refuse, and their words."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support import device_without_float64
from support.runs import tiny_call
from thawnet.core.errors import RunError
from thawnet.recipe import TrainOptions
from thawnet.training import call, checkpoint
from thawnet.training.checkpoint import RunState
from thawnet.training.machine import Machine


@pytest.mark.slow  # imports torch anew
@pytest.mark.parametrize(
    "words",
    [
        ("few photos", "--recipe", "quick"),
        ("digits", "--recipe", "full-gpu", "--balance"),
        ("digits", "--recipe", "seed", "--train-from", "upper"),
    ],
)
def test_no_training_makes_float64_on_the_device(
    words: tuple[str, ...], tmp_path: Path, tiny_weights: Path, options: TrainOptions
) -> None:
    data = options.data if words[0] == "few photos" else words[0]
    call_of = ["train", *tiny_call(data, tiny_weights), *words[1:], "--out", str(tmp_path / "run")]
    program = [sys.executable, device_without_float64.__file__, *call_of]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "accuracy: " in done.stdout
    assert (tmp_path / "run" / "report.html").exists()


def test_gpu_of_a_mac_is_left_alone_and_that_is_said(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, machine = call.chosen(replace(options, device="auto"))
    assert machine.device == "cpu"
    assert "this Mac's GPU is not used" in capsys.readouterr().err
    _, machine = call.chosen(replace(options, device="mps"))
    assert (machine.device, machine.dtype) == ("mps", "float32")
    assert capsys.readouterr().err == ""


def test_operator_that_apple_gpus_lack_is_one_sentence(
    options: TrainOptions, tmp_path: Path
) -> None:
    recipe, _ = call.chosen(options)
    machine = Machine("mps", "float32", 1, "no")
    state = RunState(options, recipe, machine, {}, 1)
    with (
        pytest.raises(RunError, match=r"lacks an operator .*'aten::x' is .*; use --device cpu, or"),
        checkpoint.resumable(state, tmp_path),
    ):
        raise NotImplementedError("The operator 'aten::x' is not implemented for the MPS device")
