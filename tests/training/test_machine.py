"""What a machine can: compiling is tried before a run counts on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from thawnet.recipe import TrainOptions
from thawnet.training import machine, run


@pytest.fixture
def untried() -> Iterator[None]:
    """Forget what was tried, before the test and after it."""
    machine._trial_fault.cache_clear()
    yield
    machine._trial_fault.cache_clear()


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(
    ("message", "device", "told"),
    [
        (
            "C++ error:\nx.cpp:9: fatal error: Python.h: No such file",
            "cpu",
            "Python.h is missing; ",
        ),
        ("Cannot find a working triton installation", "cuda", "it needs Triton, which is missing"),
        ("No working C++ compiler found\nSet TORCHDYNAMO_VERBOSE=1", "cpu", "No working C++ compi"),
    ],
)
def test_run_that_cannot_be_compiled_is_eager_with_one_line(
    options: TrainOptions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    message: str,
    device: str,
    told: str,
) -> None:
    def refuse(*_words: Any, **_more: Any) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(torch, "compile", refuse)
    monkeypatch.setattr(machine, "_can_compile", lambda _device: True)
    if device == "cuda":
        monkeypatch.setattr(torch, "ones", lambda *_size, **_on: None)
        assert str(machine.compile_fault(device)).startswith(told)
        return
    outcome = run.train(replace(options, compile="yes", epochs=(1, 1), device="cpu"))
    said = capsys.readouterr().err
    assert said.count(f"not compiled, as {told}") == 1
    assert "Traceback" not in said
    assert not any(outcome.result.compiled)


@pytest.mark.slow  # imports torch anew
def test_path_without_a_compiler_is_told_apart() -> None:
    code = "from thawnet.training.machine import compile_fault; print(compile_fault('cpu'))"
    environment = {**os.environ, "PATH": "/nowhere", "CXX": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "no C++ compiler was found\n"
