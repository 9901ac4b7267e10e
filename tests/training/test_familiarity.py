"""Images unlike the training data are recognised, at the stated rate of false alarms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import thawnet
from thawnet.recipe import TrainOptions
from thawnet.training import familiarity, run
from thawnet.training.familiarity import Unfamiliarity, pooled, some_of_each
from thawnet.training.run_folder import Outcome


def test_classes_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(familiarity, "MOST_LEARNT_FROM", 9)
    labels = np.array([0] * 50 + [2] * 2 + [1] * 40)
    rows = some_of_each(labels, 3)
    assert np.bincount(labels[rows], minlength=3).tolist() == [3, 3, 2]
    assert (np.diff(rows) > 0).all()
    assert (rows[:3] != [0, 1, 2]).any()  # drawn, not the first ones


def test_low_answers_and_odd_textures_are_unfamiliar() -> None:
    torch.manual_seed(0)
    learned, middle, logits = torch.randn(500, 4), torch.randn(400, 4), torch.randn(400, 3)
    unfamiliarity = Unfamiliarity(learned)
    unfamiliarity.measure(unfamiliarity.distances(middle), logits)
    usual = unfamiliarity(middle, logits)
    assert abs(float(usual.median())) < 1
    low, odd = unfamiliarity(torch.zeros(1, 4), torch.full((1, 3), -9.0)), torch.full((1, 4), 9.0)
    assert low > usual.max()
    assert unfamiliarity(odd, torch.full((1, 3), 5.0)) > usual.max()


def test_activations_are_averaged_over_positions() -> None:
    middle = torch.arange(16.0).reshape(1, 2, 2, 4)
    assert pooled(middle).tolist() == [[3.5, 11.5]]


def test_bundle_of_a_run_tells_unfamiliar_images_at_the_stated_rate(
    options: TrainOptions, photos: Callable[..., Path]
) -> None:
    folder = photos({"a": 240, "b": 240}, root="more")
    outcome = run.train(replace(options, data=str(folder)))
    model = thawnet.load(outcome.folder)
    assert model.unfamiliar is not None
    assert model.unfamiliar.false_alarms == 0.05
    files = sorted(folder.rglob("*.png"))
    strange = [bool(answer.unfamiliar) for answer in model.predict(files)]
    assert 0.005 < np.mean(strange) < 0.15


def test_with_a_handful_of_images_nothing_is_called_unfamiliar(finished: Outcome) -> None:
    model = thawnet.load(finished.folder)
    assert model.unfamiliar is None
    image = next(finished.folder.parent.rglob("photos/a/*.png"))
    prediction = model.predict([image])[0]
    assert prediction.unfamiliar is None
    assert prediction.as_dict()["unfamiliar"] is None
    card = (finished.folder / "bundle" / "README.md").read_text()
    assert "`unfamiliar` is null, as this network cannot tell" in card


def test_distance_is_mahalanobis_of_a_slightly_shrunk_covariance() -> None:
    torch.manual_seed(0)
    middle = torch.randn(500, 4) * torch.tensor([0.1, 1.0, 2.0, 5.0]) + 3
    centred = middle.double() - middle.double().mean(0)
    covariance = centred.T @ centred / 500
    shrunk = 0.95 * covariance + 0.05 * covariance.diagonal().mean() * torch.eye(4)
    whitening = Unfamiliarity(middle).whitening.double()
    expected = torch.linalg.inv(shrunk)
    assert torch.allclose(whitening @ whitening.T, expected, rtol=1e-3)
