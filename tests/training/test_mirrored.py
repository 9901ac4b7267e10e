"""A recipe may classify by an image and its mirror image, wherever its network is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thawnet import evaluate, job, load
from thawnet.bundle.format import read_description
from thawnet.recipe import TrainOptions, load_recipe, to_table, to_toml
from thawnet.training.run_folder import Outcome

SQUARES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.fixture
def options(options: TrainOptions, tmp_path: Path) -> TrainOptions:
    """Return a call whose recipe mirrors, and which holds images back."""
    file = tmp_path / "mirrored.toml"
    recipe = dataclasses.replace(load_recipe("quick"), mirrored=True)
    file.write_text(to_toml(to_table(recipe)))
    return dataclasses.replace(options, recipe=str(file), val_share=0.3)


def differs(outcome: Outcome, part: str) -> float:
    """Return by how much an output differs between squares and their mirror images at most."""
    model = load(outcome.folder)
    one, other = (
        getattr(model.outputs(squares, features=True), part)
        for squares in (SQUARES, np.ascontiguousarray(SQUARES[:, :, ::-1]))
    )
    return float(np.abs(one - other).max())


def test_network_answers_alike_on_an_image_and_its_mirror_image(options: TrainOptions) -> None:
    outcome = job.train(options)
    assert load(outcome.folder).preprocess.mirrored
    assert differs(outcome, "logits") < 1e-5
    assert differs(outcome, "features") < 1e-5
    plain = job.train(dataclasses.replace(options, recipe="quick"))
    assert not load(plain.folder).preprocess.mirrored
    assert differs(plain, "logits") > 1e-3


def test_accuracy_that_is_reported_is_that_of_both_sides(
    options: TrainOptions, photos: Callable[..., Path]
) -> None:
    photos({"a": 24, "b": 24}, root="data/train")
    data = photos({"a": 12, "b": 12}, root="data/test", start=50).parent
    outcome = job.train(dataclasses.replace(options, data=str(data)))
    reported, measured = outcome.result.metrics["test"], evaluate(outcome.folder, str(data))
    assert measured.images == reported.images == 24
    assert measured.accuracy == reported.accuracy
    assert measured.balanced_accuracy == reported.balanced_accuracy


@pytest.mark.parametrize("name", ["folded", "text"])
def test_what_must_not_be_mirrored_is_not(
    name: str, options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "folded":
        options = dataclasses.replace(options, val_share=None, epochs=(1, 0), folds=2)
    else:
        options = dataclasses.replace(options, data="digits", no_test=True)
    outcome = job.train(options)
    assert not read_description(outcome.folder).meaning.preprocess.mirrored
