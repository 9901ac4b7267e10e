"""Parts of a run: what a class must have to train and to validate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.shares import HELD_BACK
from thawnet.bundle.format import read_description
from thawnet.core.errors import DataError
from thawnet.data.shares import Shares
from thawnet.data.sources.open import open_source
from thawnet.data.splits import arrange
from thawnet.image.preprocess import Reduction
from thawnet.recipe import TrainOptions, load_recipe
from thawnet.training import parts, run

Photos = Callable[..., Path]


def copy(folder: Path, name: str, images: int) -> None:
    """Make all images of a class byte copies of its first."""
    first = (folder / name / "000.png").read_bytes()
    for number in range(images):
        (folder / name / f"{number:03d}.png").write_bytes(first)


def opened(folder: Path, shares: Shares) -> tuple[int, int]:
    source = open_source(str(folder))
    train, val = parts.open_parts(
        load_recipe("quick"), source, arrange(source, shares), Reduction(40)
    )
    return len(train), len(val)


@pytest.mark.parametrize("shares", [HELD_BACK, Shares()])
def test_classes_of_copies_are_named_and_not_called_too_few(photos: Photos, shares: Shares) -> None:
    folder = photos({"a": 12, "b": 9})
    copy(folder, "a", 12)
    copy(folder, "b", 9)
    with pytest.raises(
        DataError,
        match=r"^the 12 training images of class 'a' are copies of one, and so are those of 1 more:"
        r" none is left to validate on; give the class other images, or remove it$",
    ):
        opened(folder, shares)


@pytest.mark.parametrize("shares", [HELD_BACK, Shares()])
def test_a_class_of_copies_beside_others_is_said(
    photos: Photos, shares: Shares, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 12, "b": 12})
    copy(folder, "b", 12)
    train, val = opened(folder, shares)
    assert train >= 12
    assert val > 0
    said = capsys.readouterr().err
    assert "the 12 training images of class 'b' are copies of one: none is left to validate" in said


def test_classes_of_two_of_which_one_tests_are_told_how_many_they_need(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    with pytest.raises(DataError, match=r"a class needs at least 3, of which one is held back to"):
        opened(folder, HELD_BACK)


def test_one_image_of_a_class_in_each_part_is_enough(photos: Photos) -> None:
    for start, part in enumerate(("train", "val", "test")):
        folder = photos({"a": 1, "b": 1}, f"d/{part}", start=start)
    source = open_source(str(folder.parent))
    lists = arrange(source, HELD_BACK)
    train, val = parts.open_parts(load_recipe("quick"), source, lists, Reduction(40))
    assert lists.test is not None
    assert (len(train), len(val), len(lists.test())) == (2, 2, 2)


def test_wide_images_and_deep_grey_are_said_when_a_run_begins(
    options: TrainOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(24):
        path = tmp_path / "wide" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        levels = np.random.default_rng(number).integers(0, 3000 if number % 2 else 500, (40, 120))
        Image.fromarray(levels.astype(np.uint16)).save(path)
    outcome = run.train(replace(options, data=str(tmp_path / "wide"), fit="squash"))
    said = capsys.readouterr().err
    assert "grey levels in 16 bits are read as 12 bits, the most that are used" in said
    assert "--fit" not in said
    spec = read_description(outcome.folder).meaning.preprocess
    assert (spec.fit, spec.bits) == ("squash", 12)
    run.train(replace(options, data=str(tmp_path / "wide")))
    assert "long side of images is 3.0 times the short one, and only the square" in (
        capsys.readouterr().err
    )
