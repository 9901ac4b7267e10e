"""The head's optimum: scikit-learn's, whatever the shape, and a penalty that others choose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from thawnet.training.learning_curve import learning_curve
from thawnet.training.loop import loss_weights
from thawnet.training.regression import Problem, cross_validate, validate


def features(
    images: int, width: int, classes: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features (n, d) around a middle of each class, and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(images) % classes
    noise = torch.randn(images, width, generator=generator)
    return 3 + middles[labels] + 2.5 * noise, labels


@pytest.mark.parametrize("shape", [(60, 200), (400, 30)])
@pytest.mark.parametrize("penalty", [1e-2, 1e-4])
def test_solution_is_scikit_learns(shape: tuple[int, int], penalty: float) -> None:
    x, labels = features(*shape, 4)
    problem = Problem([x], labels, 4)
    fitted = problem.fitted(problem.solve(penalty), penalty)
    scale = float(x.norm(dim=1).mean())
    other = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-9, max_iter=5000)
    other.fit(x.double().numpy() / scale, labels.numpy())
    expected = other.predict_proba(x.double().numpy() / scale)
    assert fitted.logits(x).softmax(1).numpy() == pytest.approx(expected, abs=2e-3)
    assert fitted.penalty == penalty


def test_twice_the_views_of_an_image_count_as_one() -> None:
    x, labels = features(80, 20, 3)
    once, twice = Problem([x], labels, 3), Problem([x, x], labels, 3)
    one, two = (each.fitted(each.solve(1e-3), 1e-3).logits(x) for each in (once, twice))
    assert torch.allclose(one, two, atol=1e-3)


def test_class_weights_let_a_rare_class_be_heard() -> None:
    x, labels = features(200, 10, 2)
    rare = torch.cat([torch.arange(0, 200, 2), torch.tensor([1, 3, 5])])
    x, labels = x[rare], labels[rare]
    plain = Problem([x], labels, 2)
    fair = Problem([x], labels, 2, loss_weights(labels.numpy(), 2))
    named = [
        int((each.fitted(each.solve(1e-2), 1e-2).logits(x).argmax(1) == 1).sum())
        for each in (plain, fair)
    ]
    assert named[0] < named[1]


def test_out_of_fold_answers_are_of_heads_that_did_not_learn_from_the_image() -> None:
    x, labels = features(60, 20, 3)
    folds = np.arange(60) // 3 % 5
    problem = Problem([x], labels, 3)
    chosen = cross_validate(problem, labels, folds, lambda done: None)
    held = torch.from_numpy(folds == 2)
    head = problem.fitted(chosen.folds[2], chosen.penalty)
    assert torch.allclose(chosen.logits[held], head.logits(x[held]), atol=1e-3)
    # The same, learned where there are no others, but for the unit of the penalty.
    alone = Problem([x[~held]], labels[~held], 3)
    one, other = problem.fitted(problem.solve(1e-2, ~held), 1e-2), alone.solve(1e-2)
    assert torch.allclose(one.logits(x), alone.fitted(other, 1e-2).logits(x), atol=0.1)
    assert chosen.loss < np.log(3)
    memory = problem.fitted(problem.solve(chosen.penalty), chosen.penalty).logits(x)
    right, held_out = ((each.argmax(1) == labels).sum() for each in (memory, chosen.logits))
    assert right > held_out


def test_same_input_gives_the_same_bits() -> None:
    x, labels = features(60, 100, 3)
    one, other = (Problem([x], labels, 3).solve(1e-3) for _ in range(2))
    assert torch.equal(one[0], other[0])


def test_validation_chooses_the_penalty() -> None:
    x, labels = features(90, 60, 3)
    others, truth = features(600, 60, 3, seed=1)
    best = validate(Problem([x], labels, 3), others, truth, lambda done: None)
    problem = Problem([x], labels, 3)
    losses = {
        penalty: float(
            torch.nn.functional.cross_entropy(
                problem.fitted(problem.solve(penalty), penalty).logits(others), truth
            )
        )
        for penalty in (best.penalty * 10, best.penalty, best.penalty / 10)
    }
    assert min(losses, key=losses.__getitem__) == best.penalty


@pytest.mark.parametrize("case", ["one class", "features all alike"])
def test_what_tells_nothing_is_solved_too(case: str) -> None:
    x, labels = features(20, 10, 2)
    x, labels = (x, labels * 0) if case == "one class" else (torch.ones_like(x), labels)
    problem = Problem([x], labels, 2)
    logits = problem.fitted(problem.solve(1e-3), 1e-3).logits(x)
    assert torch.isfinite(logits).all()


def test_more_images_help_and_smaller_shares_are_parts_of_larger() -> None:
    x, labels = features(200, 60, 4)
    others, truth = features(800, 60, 4, seed=1)
    problem = Problem([x], labels, 4)
    rounds = [
        (
            torch.ones(200, dtype=torch.bool),
            lambda solution: problem.fitted(solution, 1e-3).logits(others),
        )
    ]
    curve = learning_curve(problem, labels.numpy(), rounds, truth.numpy(), 1e-3)
    assert [point.images for point in curve] == [52, 100, 152, 200]
    assert curve[0].accuracy + 0.03 < curve[-1].accuracy
    assert len(curve[0].recall) == 4
    assert np.mean(curve[-1].recall) == pytest.approx(curve[-1].accuracy, abs=1e-3)
