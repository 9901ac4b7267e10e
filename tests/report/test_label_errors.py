"""Label errors that were planted are found, by classifiers that did not see them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from support.shared import CIFAR, IMAGENET
from thawnet.report.label_errors import margins

CLASSES = 10


def clouds(images: int, seed: int = 0) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Return features, (n, 32), in a cloud for each class, and the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, images)
    centres = rng.normal(0, 1, (CLASSES, 32))
    values = centres[labels] + rng.normal(0, 1, (images, 32))
    return torch.from_numpy(values.astype(np.float32)), labels


def judged(
    features: torch.Tensor,
    labels: NDArray[np.int64],
    classes: int = CLASSES,
    ties: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    ties = np.arange(len(labels)) if ties is None else ties
    return margins(lambda rows: features[torch.from_numpy(rows)], labels, ties, classes)


def flipped(
    labels: NDArray[np.int64], classes: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return labels of which 5 % are another class, and which those are."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(labels), bool)
    wrong[rng.choice(len(labels), len(labels) // 20, replace=False)] = True
    moved = (labels + rng.integers(1, classes, len(labels))) % classes
    return np.where(wrong, moved, labels), wrong


def test_planted_label_errors_come_first_with_their_true_class() -> None:
    features, labels = clouds(2000)
    given, wrong = flipped(labels, CLASSES, 1)
    found, other = judged(features, given)
    most = np.argsort(-found)[: wrong.sum() // 2]
    assert wrong[most].mean() > 0.95
    assert (other[most] == labels[most]).mean() > 0.9


def test_copy_does_not_speak_for_its_own_label() -> None:
    # Each image stands there twice; whoever had seen one would know the other's class.
    half = np.random.default_rng(0).normal(size=(40, 79)).astype(np.float32)
    features = torch.from_numpy(np.concatenate([half, half]))
    labels = np.tile(np.arange(40) % 2, 2)
    apart, _ = judged(features, labels, 2)
    together, _ = judged(features, labels, 2, np.tile(np.arange(40), 2))
    assert (together > 0).mean() > 0.25
    assert (apart > 0).mean() < (together > 0).mean() - 0.1


def test_margins_are_the_same_each_time() -> None:
    features, labels = clouds(300)
    np.testing.assert_array_equal(judged(features, labels)[0], judged(features, labels)[0])


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not CIFAR.exists(), reason="there is no ../shared/data/cifar100")
def test_of_the_500_most_suspect_in_20_000_of_cifar100_60_percent_were_flipped(
    tmp_path: Path,
) -> None:
    from thawnet.data.shares import Shares
    from thawnet.data.sources.open import open_source
    from thawnet.data.splits import arrange
    from thawnet.data.store import typical_image
    from thawnet.recipe import TrainOptions, load_recipe, resolve
    from thawnet.training.machine import decide
    from thawnet.training.parts import open_images
    from thawnet.training.pretrained import build_network, fit_input
    from thawnet.training.ranks import ALONE
    from thawnet.training.trunk.cache import Origin
    from thawnet.training.trunk.feeds import make_feed

    asked = TrainOptions(data="cifar100", data_dir=CIFAR, weights=str(IMAGENET), size=96)
    source = open_source("cifar100", CIFAR)
    train = arrange(source, Shares()).train.subset(np.arange(20_000))
    recipe, weights, spec = fit_input(
        resolve(load_recipe("quick"), asked), source, typical_image(train)
    )
    machine = decide("cpu", "auto", "no")
    network = build_network(recipe, source, weights, machine)
    split = len(network.stages) - 1
    images = open_images("train", train, spec.reduction)
    origin = Origin(network, weights.digest, images, spec, recipe.augment, machine, (split,))
    feed = make_feed(origin, [split], 1, 0, None, ALONE)
    assert feed.cached
    given, wrong = flipped(images.labels, 100, 0)
    begun = time.perf_counter()
    found, _ = margins(feed.epoch(0), given, images.ties, 100)
    assert time.perf_counter() - begun < 10
    assert wrong[np.argsort(-found)[:500]].mean() >= 0.6


def test_margins_are_the_odds_of_ridge_regression_that_did_not_see_the_image() -> None:
    features, labels = clouds(60)
    found, other = judged(features, labels)
    x = np.concatenate([features.numpy(), np.ones((60, 1), np.float32)], 1).astype(np.float64)
    fold = np.random.default_rng(0).permutation(60) % 5
    odds = np.empty(60)
    for row in range(60):
        seen = x[fold != fold[row]]
        penalty = np.eye(33) * 0.3 * (seen[:, :32] ** 2).sum(axis=0).mean()
        penalty[-1, -1] = 1e-6 * len(seen)
        targets = np.eye(CLASSES)[labels[fold != fold[row]]]
        scores = 10 * x[row] @ np.linalg.solve(seen.T @ seen + penalty, seen.T @ targets)
        given, others = scores[labels[row]], np.delete(scores, labels[row])
        odds[row] = np.log(np.exp(others).sum()) - given
        assert np.delete(np.arange(CLASSES), labels[row])[others.argmax()] == other[row]
        if given >= others.max():
            odds[row] = min(odds[row], 0)
    assert found == pytest.approx(odds / odds.std(ddof=1), rel=1e-3, abs=1e-3)
