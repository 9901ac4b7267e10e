"""A hundred photos with real weights: never worse than logistic regression on the same features."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from inputs import write_few
from support.shared import IMAGENET, LITE, SHARED
from thawnet.recipe import TrainOptions
from thawnet.training import run

PHOTOS = SHARED / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (PHOTOS / "flowers").is_dir(), reason=f"needs {PHOTOS} and weights"),
]


@pytest.mark.parametrize(
    ("weights", "name", "learned", "least"),
    [
        (IMAGENET, "flowers", 5, 0),
        (IMAGENET, "flowers", 20, 0),
        (IMAGENET, "sign-digits", 10, 0.05),
        (LITE, "sign-digits", 10, 0.05),
    ],
)
def test_run_is_never_worse_than_the_head_alone(
    tmp_path: Path, weights: Path, name: str, learned: int, least: float
) -> None:
    data = write_few(PHOTOS / name, tmp_path / name, 40, learned, seed=3)
    result = run.train(
        TrainOptions(data=str(data), recipe="quick", weights=str(weights), no_report=True)
    ).result
    assert result.baselines
    alone = result.baselines.logistic_regression_on_frozen_features.accuracy
    accuracy, images = result.scores.accuracy, result.scores.images
    error = math.sqrt(alone * (1 - alone) / images)
    assert accuracy >= alone + least - (0 if result.kept == "head" else error)
    if result.kept == "head":
        assert accuracy == alone
