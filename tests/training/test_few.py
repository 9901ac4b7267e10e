"""Few photos: all of them learn, each is tested by a network that did not see it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import thawnet
from support.patches import after_each_save, stop_after
from support.photos import draw
from support.runs import epochs_of, tensors_of
from thawnet import job
from thawnet.bundle.format import read_description
from thawnet.core.errors import DataError, InterruptedRunError, RecipeError, UsageError
from thawnet.data.sources.open import open_source
from thawnet.metrics.predictions import read_predictions
from thawnet.recipe import TrainOptions
from thawnet.training import few, run
from thawnet.training.checkpoint import RunState
from thawnet.training.evidence import Evidence, Side
from thawnet.training.outputs import ITSELF
from thawnet.training.reopening import reopen

Photos = Callable[..., Path]


@pytest.fixture
def alone(options: TrainOptions) -> TrainOptions:
    """Return a call on 72 photos without parts of their own, as a newcomer's."""
    return dataclasses.replace(options, epochs=None)


@pytest.fixture
def tested(options: TrainOptions, photos: Photos) -> TrainOptions:
    """Return a call on 30 photos with a test part."""
    folder = photos({"a": 10, "b": 10, "c": 10}, "parted/train")
    photos({"a": 8, "b": 8, "c": 8}, "parted/test", start=50)
    return dataclasses.replace(options, data=str(folder.parent), epochs=None)


def judged(monkeypatch: pytest.MonkeyPatch, *gains: float) -> None:
    """Let the folds find these gains of fine-tuning, the last one again and again."""
    left = list(gains)

    def weigh(head: np.ndarray, *_: object) -> Evidence:
        gain = left.pop(0) if len(left) > 1 else left[0]
        return Evidence(len(head), Side(1, 1.0), Side(1, 1.0 - gain), 0.1)

    monkeypatch.setattr(few, "weigh", weigh)


def interrupt_fine_tuning(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a run, and interrupt it at the first state of phase 2 that it saves."""

    def stop(state: RunState) -> None:
        if state.phase == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        after_each_save(patch, stop)
        with pytest.raises(InterruptedRunError):
            run.train(options)


def test_every_photo_is_tested_by_a_network_that_did_not_see_it(
    alone: TrainOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run.train(alone)
    result, said = outcome.result, capsys.readouterr().err
    assert "none is held back: each is validated by a network that did not learn from it" in said
    assert result.folds == 5
    assert result.headline == "validation"
    assert result.scores.images == 72
    assert outcome.line.startswith("cross-validated accuracy: ")
    assert outcome.line.endswith("72 images)")
    assert "every image was tested by a network that learned from the other folds of 5" in "".join(
        outcome.lines
    )
    predictions = read_predictions(outcome.folder / "predictions.csv")
    assert len(set(predictions.images)) == 72
    assert predictions.hits.mean() == pytest.approx(result.scores.accuracy)
    # The network that is kept learned from all of them, and knows them.
    evaluated = thawnet.evaluate(outcome.folder, alone.data)
    assert evaluated.images == 72
    assert evaluated.unseen is None
    card = (outcome.folder / "bundle" / "README.md").read_text()
    assert "| cross-validated accuracy |" in card
    assert "of 72 images that it learned from, each tested by a network that did not" in card
    rows = epochs_of(outcome)
    assert [row["phase"] for row in rows] == [0, *[1] * few.MARKS]
    assert [row["kept"] for row in rows[:-1]] == [True, *[False] * (few.MARKS - 1)]
    assert rows[-1]["kept"] == (result.kept == "fine-tune")
    assert len(result.learning_curve) == 4


def test_test_part_is_read_once_and_all_of_train_learns(
    tested: TrainOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run.train(tested)
    assert "3 classes, 30 training images" in capsys.readouterr().err
    assert outcome.line.startswith("test accuracy: ")
    assert outcome.result.scores.images == 24
    assert outcome.result.metrics["validation"].images <= 30


def test_head_alone_is_the_regression_and_says_so(
    tested: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged(monkeypatch, -0.5)
    outcome = run.train(tested)
    said = capsys.readouterr().err
    assert "fold 2 of 5 fine-tuned" in said
    assert "fold 3 of 5" not in said  # what cannot pay is not gone on with
    result = outcome.result
    assert result.kept == "head"
    assert result.baselines
    regression = result.baselines.logistic_regression_on_frozen_features
    assert regression.accuracy == result.scores.accuracy
    assert f"{ITSELF}: fine-tuning did not improve on it" in outcome.lines
    assert result.metrics["validation"].images == 30  # by the heads of all folds


def test_folds_are_spared_once_fine_tuning_surely_pays_and_a_test_part_tells(
    tested: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(few, "LEAST_VALIDATION", 10)
    judged(monkeypatch, 0.5)
    result = run.train(tested).result
    said = capsys.readouterr().err
    assert ("fold 2 of 5" in said, "fold 3 of 5" in said) == (True, False)
    assert result.kept == "fine-tune"
    assert 10 <= result.metrics["validation"].images < 20


@pytest.mark.parametrize("gain", [0.5, -0.15])
def test_stop_in_any_fold_ends_with_the_bits_of_an_uninterrupted_run(
    alone: TrainOptions, monkeypatch: pytest.MonkeyPatch, gain: float
) -> None:
    judged(monkeypatch, gain)
    with monkeypatch.context() as patch:
        saves: list[int] = []
        after_each_save(patch, lambda state: saves.append(state.phase))
        whole = run.train(alone)
    assert whole.result.kept == ("fine-tune" if gain > 0 else "head")
    call = alone
    for number in (3, 5, 4):  # behind the head, and behind folds
        with monkeypatch.context() as patch:
            stop_after(patch, number)
            with pytest.raises(InterruptedRunError):
                run.train(call)
        call = TrainOptions(resume="", no_report=True)
    resumed = run.train(call)
    first, second = tensors_of(whole), tensors_of(resumed)
    assert all((first[name] == second[name]).all() for name in first)
    told = ("image", "predicted", "probability")
    one, other = (read_predictions(each.folder / "predictions.csv") for each in (whole, resumed))
    assert one == other, told
    assert whole.result.metrics == resumed.result.metrics


def test_stop_behind_the_last_fold_finishes_with_what_was_held_out(
    tested: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few, "LEAST_VALIDATION", 10)
    judged(monkeypatch, 0.5)
    whole = run.train(tested)
    interrupt_fine_tuning(tested, monkeypatch)
    resumed = run.train(TrainOptions(resume="", no_report=True))
    assert whole.result.metrics == resumed.result.metrics


def test_test_part_that_goes_behind_spared_folds_leaves_what_they_held_out(
    tested: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few, "LEAST_VALIDATION", 10)
    judged(monkeypatch, 0.5)
    interrupt_fine_tuning(tested, monkeypatch)
    result = run.train(TrainOptions(resume="", no_test=True, no_report=True)).result
    assert result.headline == "validation"
    assert result.scores.images == 12  # of two folds
    assert result.baselines


def test_report_of_folded_photos_is_made_again_from_their_own_answers(alone: TrainOptions) -> None:
    from thawnet.report.gather import gather
    from thawnet.report.material import reopen_material

    outcome = job.train(dataclasses.replace(alone, no_report=False))
    page = (outcome.folder / "report.html").read_text()
    assert "cross-validated accuracy" in page
    assert "Would more photos help?" in page
    again = gather(reopen_material(outcome.folder, None, None))
    hits = again.confusion.counts.trace() / again.confusion.counts.sum()
    assert hits == pytest.approx(outcome.result.scores.accuracy)
    description = read_description(outcome.folder)
    reopened = reopen(description, alone.data, None)
    assert len(reopened.train) == len(reopened.val) == 72


def test_flags_hold_images_back_or_fold_them(
    alone: TrainOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    held = run.train(dataclasses.replace(alone, test_share=0.25)).result
    assert held.headline == "test"
    assert held.folds == 5
    assert 10 < held.scores.images < 27
    assert held.metrics["validation"].images <= 72 - held.scores.images
    back = run.train(dataclasses.replace(alone, val_share=0.3)).result
    assert back.folds == 0
    assert back.metrics["validation"].images > 10
    three = run.train(dataclasses.replace(alone, folds=3, split_seed=4)).result
    assert three.folds == 3
    assert "in each of 3 folds" in capsys.readouterr().err


def test_validation_part_beside_few_photos_tests_them(
    options: TrainOptions, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 10, "b": 10, "c": 10}, "parted/train")
    photos({"a": 6, "b": 6, "c": 6}, "parted/val", start=50)
    call = dataclasses.replace(options, data=str(folder.parent), epochs=None)
    result = run.train(call).result
    assert result.headline == "test"
    assert result.scores.images == 18
    assert "no test part: the validation part tests" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"folds": 1}, RecipeError, "folds = 1: must be 2 to 20"),
        ({"folds": 5, "epochs": (1, 1)}, RecipeError, "--folds with --epochs: few photos are fine"),
        ({"folds": 5, "val_share": 0.1}, RecipeError, "--folds with --val-share: folds hold no"),
        (
            {"test_share": 0.7},
            RecipeError,
            "test_share = 0.7: must be 0 to 0.5, as in 0.2 for a fifth",
        ),
        ({"folds": 20}, DataError, "--folds 20: 6 training images can form 6 folds at most"),
        (
            {"recipe": "seed", "folds": 5, "train_from": "upper"},
            UsageError,
            "'seed' cross-val",
        ),
    ],
)
def test_flags_that_cannot_be_are_one_sentence(
    options: TrainOptions,
    photos: Photos,
    changes: dict[str, object],
    error: type[Exception],
    sentence: str,
) -> None:
    few = {"data": str(photos({"a": 3, "b": 3}, "few")), "epochs": None}
    with pytest.raises(error, match=sentence):
        run.train(dataclasses.replace(options, **{**few, **changes}))  # type: ignore[arg-type]
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_fewer_photos_than_folds_form_as_many_as_they_are(
    options: TrainOptions, photos: Photos
) -> None:
    data = photos({"a": 2, "b": 2}, "four")
    outcome = run.train(dataclasses.replace(options, data=str(data), epochs=None))
    assert outcome.result.folds == 4
    assert outcome.result.scores.images == 4


@pytest.mark.parametrize(
    ("flag", "part"), [("test_share", "test"), ("val_share", "val"), ("test_share", "val")]
)
def test_share_of_data_with_parts_is_refused(
    options: TrainOptions, photos: Photos, flag: str, part: str
) -> None:
    folder = photos({"a": 4, "b": 4}, "parted/train")
    photos({"a": 2, "b": 2}, f"parted/{part}", start=50)
    call = dataclasses.replace(options, data=str(folder.parent), epochs=None, **{flag: 0.2})
    with pytest.raises(UsageError, match=r"share 0.2: 'parted' has parts of its own"):
        run.train(call)


def test_class_of_one_photo_each_is_refused(options: TrainOptions, photos: Photos) -> None:
    call = dataclasses.replace(options, data=str(photos({"a": 1, "b": 1}, "two")), epochs=None)
    with pytest.raises(DataError, match="too few training images, 2: a class needs at least 2"):
        run.train(call)


def test_photos_added_leave_the_others_in_their_part(alone: TrainOptions) -> None:
    call = dataclasses.replace(alone, test_share=0.3, no_report=True)
    first = read_predictions(run.train(call).folder / "predictions.csv").images
    for number in range(300, 336):
        draw(number % 3, number).save(Path(alone.data) / "abc"[number % 3] / f"{number}.png")
    second = read_predictions(run.train(call).folder / "predictions.csv").images
    assert set(first) <= set(second)
    assert len(second) > len(first)


def test_part_that_a_run_held_back_is_known_to_evaluate(alone: TrainOptions) -> None:
    outcome = run.train(dataclasses.replace(alone, test_share=0.3))
    evaluated = thawnet.evaluate(outcome.folder, alone.data, part="test")
    assert evaluated.images == outcome.result.scores.images
    assert evaluated.accuracy == pytest.approx(outcome.result.scores.accuracy)
    with pytest.raises(
        UsageError, match="has only train, and the run held no val part back: each image"
    ):
        thawnet.evaluate(outcome.folder, alone.data, part="val")


def test_state_of_folds_is_read_back(alone: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, 0.5)
    outcome = run.train(alone)
    described = json.loads((outcome.folder / "result.json").read_text())
    assert described["kept"] == "fine-tune"
    assert np.load(outcome.folder / "held_out.npy", allow_pickle=False).shape == (72, 3)
    assert open_source(alone.data).classes == ("a", "b", "c")
