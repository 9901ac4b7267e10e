"""Folders as competitions publish them, through inspect, train and predict."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import called
from support.photos import draw
from support.runs import tiny_call

Photos = Callable[..., Path]


@pytest.mark.parametrize("flat", ["test", "val"])
def test_images_without_classes_are_left_out_and_predicted_by_the_last_command(
    photos: Photos, tiny_weights: Path, flat: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 6, "b": 6}, "d/train").parent
    (folder / flat / "unknown").mkdir(parents=True)
    for number in range(3):
        draw(0, 50 + number).save(folder / flat / "unknown" / f"{number}.png")
    left_out = f"left out: '{folder / flat}', 3 images without a class of train"
    status, out, _ = called(capfd, "inspect", folder)
    assert status == 0
    assert left_out in " ".join(out.split())
    status, out, err = called(capfd, "train", *tiny_call(folder, tiny_weights), "--no-report")
    assert status == 0
    assert left_out in err
    assert "accuracy" in out
    (line,) = (line for line in err.splitlines() if line.startswith("use it: "))
    command = shlex.split(line.removeprefix("use it: "))
    assert command[:4] == ["thawnet", "predict", str(folder / flat), "--model"]
    status, out, _ = called(capfd, *command[1:])
    assert status == 0
    assert len(out.splitlines()) == 3
