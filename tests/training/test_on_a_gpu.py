"""Runs on a GPU end as runs on a CPU do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.runs import epochs_of
from thawnet.bundle.model import load
from thawnet.recipe import TrainOptions
from thawnet.training import run

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("recipe", ["quick", "full-gpu"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.filterwarnings("default")  # those of PyTorch and its driver are not ours
def test_run_on_a_gpu_learns_and_its_bundle_answers(
    recipe: str, precision: str, options: TrainOptions, tmp_path: Path
) -> None:
    options = replace(options, device="cuda", recipe=recipe, epochs=(2, 2), out=tmp_path / "run")
    outcome = run.train(replace(options, precision=precision))
    assert outcome.line.startswith("test accuracy: ")
    losses = [row["train_loss"] for row in epochs_of(outcome)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    image = next(Path(options.data).rglob("*.png"))
    (found,) = load(outcome.folder).predict([image])
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-4)
