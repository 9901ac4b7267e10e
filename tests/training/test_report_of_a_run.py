"""Report, card and log say what happened: each figure and sentence against the run's records."""

from __future__ import annotations

import dataclasses
import html
import re
import sys
from pathlib import Path

import pytest

from support.patches import after_each_save
from support.runs import quick_with
from thawnet import job
from thawnet.core.errors import InterruptedRunError
from thawnet.metrics.accuracy import calibrated, standing
from thawnet.metrics.predictions import read_predictions
from thawnet.metrics.result import (
    CalibrationErrors,
    PhaseResult,
    Regression,
    Validation,
    read_log,
    read_result,
)
from thawnet.recipe import TrainOptions
from thawnet.report import gather
from thawnet.training import phase
from thawnet.training.checkpoint import RunState
from thawnet.training.evidence import Evidence, Side

MINUS = "\u2212"  # as the report writes it


def text_of(page: str) -> str:
    """Return a page's text without its markup, styles and scripts, on one line."""
    page = re.sub(r"(?s)<(style|script).*?</\1>", "", page)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


@pytest.fixture
def stopping_early(options: TrainOptions, tmp_path: Path) -> TrainOptions:
    """Return a call whose fine-tuning changes nothing, and so ends before its six epochs do."""
    finetune = {"epochs": 6, "min_steps": 0, "patience": 1, "lr": 1e-12, "ema": 0.0}
    still = {"batch_norm": "frozen", "views": 1}
    recipe = quick_with(tmp_path, {"epochs": 2, "min_steps": 0}, finetune | still)
    return dataclasses.replace(
        options, recipe=recipe, epochs=None, no_report=False, out=Path("run")
    )


@pytest.mark.parametrize("stopped", [False, True])
def test_report_card_and_log_say_what_happened(
    stopping_early: TrainOptions,
    stopped: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["thawnet", "train", "photos", "--out", "run"])
    worse = Evidence(6, Side(5, 0.3), Side(5, 0.4), 0.01)
    monkeypatch.setattr(phase, "weigh", lambda *_: worse)
    call = stopping_early
    if stopped:

        def stop(state: RunState) -> None:
            if state.phase == 1:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            after_each_save(patch, stop)
            with pytest.raises(InterruptedRunError):
                job.train(call)
        monkeypatch.setattr(sys, "argv", ["thawnet", "train", "--resume", "run"])
        call = TrainOptions(resume="run")
    outcome = job.train(call)
    said = capsys.readouterr().err
    page = text_of((outcome.folder / "report.html").read_text(encoding="utf-8"))
    card = (outcome.folder / "bundle" / "README.md").read_text(encoding="utf-8")
    result = outcome.result
    assert read_result(outcome.folder) == result
    rows = read_log(outcome.folder)

    # How long each phase ran, of how long it might have, and what it kept.
    head, finetune = ([row for row in rows if row.phase == number] for number in (0, 1))
    first = next(row for row in head if row.kept)
    assert not any(row.kept for row in finetune)
    assert len(finetune) < 6
    assert f"Epochs of the head {len(head)}, epoch {first.epoch:g} kept" in page
    ran = f"{len(finetune)} of at most 6, none kept"
    assert f"Epochs of fine-tuning {ran}" in page

    # What it cannot tell.
    assert re.search(
        r"images unlike the training data will not be marked: \d+ validation images are too few",
        said,
    )
    assert "`unfamiliar` is null, as this network cannot tell" in card

    # Which layers: a layer's name, as the log had it, no word of a recipe.
    layer = re.findall(r"fine-tune: [\d,]+ parameters train from (\S+), at most 6 epochs", said)[-1]
    assert f"Thawed from {layer} " in page
    # Nothing that changed nothing is kept, and so it is said.
    assert result.kept == "head"
    assert "fine-tuning is not kept, the head alone is the result" in said
    assert "fine-tuning more of it was not better and is not kept" in card
    assert "Network kept the head alone" in page
    assert "upper" not in page.split("Command")[0]

    # The head alone and the final network, on the same images.
    validation = f"{100 * first.val_accuracy:.2f} %"
    assert re.search(
        rf"the head alone on validation images while it trained, where this run had {validation} "
        rf"{validation} {re.escape('+0.00')}",
        page,
    )

    # The baseline: frozen features of random weights beat a network that hardly learned.
    scores = result.metrics["test"]
    assert result.baselines
    baseline = result.baselines.logistic_regression_on_frozen_features
    assert baseline.accuracy > scores.accuracy
    points = f"{100 * (baseline.accuracy - scores.accuracy):.2f} points"
    sentence = f"ogistic regression on the frozen features is better than this network, by {points}"
    for where in (page, card, " ".join(outcome.lines)):
        assert sentence in where

    # Calibration: how many images fitted it, and if it made it worse.
    images = result.metrics["validation"].images
    errors = scores.expected_calibration_error
    assert f"fitted on {images} validation images" in page
    worse = errors.calibrated > errors.uncalibrated
    assert ("worse than before" in page) == worse
    assert ("made it worse" in " ".join(outcome.lines)) == worse
    assert f"calibrated on {images} images" in card

    # Close calls are close; the others are not listed.
    predictions = read_predictions(outcome.folder / "predictions.csv")
    assert f"{len(predictions.images)} in all" in page
    hits = re.search(r"Right, and given ([\d.]+) % (?:to ([\d.]+) %)?", page)
    assert hits is None or float(hits[hits.lastindex or 1]) <= 90

    # The whole time, of both goes.
    whole = sum(seconds for stage, seconds in result.seconds.items() if stage != "in all")
    assert result.seconds["in all"] >= whole
    assert "start and rest" in page

    # Who was called, when it ran in two goes as well.
    assert result.command == "thawnet train photos --out run"
    assert "Command thawnet train photos --out run" in page
    assert "Every class has 24 images in the train part" in page


@pytest.mark.parametrize(
    ("own", "regression", "p", "sentence"),
    [
        (0.88, 0.88, 1.0, "logistic regression on the frozen features is as good as this network"),
        (0.52, 0.68, 0.04, r"better than this network, by 16.00 points \(McNemar p = 0.04\)"),
        (0.52, 0.68, 0.22, r"by 16.00 points \(may be chance: McNemar p = 0.22\)"),
        (0.9, 0.5, 1e-9, r"this network is 40.00 points better than .* \(McNemar p = 1e-09\)"),
        (0.6, 0.5, 0.3, r"is 10.00 points better than .* \(may be chance: McNemar"),
    ],
)
def test_a_baseline_that_is_as_good_or_better_is_said_to_be(
    own: float, regression: float, p: float, sentence: str
) -> None:
    assert re.search(sentence, standing(own, Regression(regression, (0.0, 1.0), p, 10, 1.0)))


def test_a_temperature_that_made_calibration_worse_is_said_to_have() -> None:
    worse = calibrated(CalibrationErrors(0.1398, 0.1502), 20)
    assert worse == (
        "expected calibration error 15.02 % (13.98 % uncalibrated; fitted on 20 images, the "
        "temperature made it worse)"
    )
    better = calibrated(CalibrationErrors(0.1598, 0.0325), 2500)
    assert better == "expected calibration error 3.25 % (15.98 % uncalibrated)"
    assert calibrated(CalibrationErrors(0.1, 0.1), 0).endswith("%, not calibrated")


@pytest.mark.parametrize(
    ("ran", "most", "patience", "sentence"),
    [
        (48, 48, 10, "48, epoch 7 kept"),
        (21, 40, 10, "21 of at most 40, epoch 7 kept"),
        (9, 9, 0, "9"),
    ],
)
def test_epochs_are_those_that_ran(ran: int, most: int, patience: int, sentence: str) -> None:
    kept = Validation(7, 0, 1.0, 0.5, 1.0, 0.5, kept=True)
    phase = PhaseResult("head", "head", 16, 0.1, patience, epochs=most, epochs_run=ran, kept=kept)
    assert gather._epochs(phase) == sentence
