"""An evaluation: every figure as defined elsewhere, and the lines that a person reads."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thawnet.metrics.accuracy import interval
from thawnet.metrics.calibration import calibration_error
from thawnet.metrics.summary import Evaluation, Unreadable, sum_up
from thawnet.metrics.table import table

IMAGES = 400


def facts(count: int, **changes: Any) -> dict[str, Any]:
    """Return what `sum_up` takes besides arrays, for so many classes."""
    plain = {
        "model": "runs/x/bundle",
        "backbone": "mobilenetv2_100",
        "classes": tuple(f"class {number:02d}" for number in range(count)),
        "temperature": 1.5,
        "data": "photos",
        "part": "test",
    }
    return plain | changes


def drawn(classes: int, of: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw logits over `classes` of images whose classes are the first `of`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, of, IMAGES)
    logits = rng.normal(0, 1, (IMAGES, classes)) + 1.5 * np.eye(classes)[labels]
    return logits.astype(np.float32), labels


def evaluated(classes: int = 12, of: int = 12, **changes: Any) -> Evaluation:
    logits, labels = drawn(classes, of)
    known = np.zeros(IMAGES, bool)
    return sum_up(logits, labels, known, None, **facts(classes, **changes))


@pytest.mark.parametrize(("classes", "of"), [(12, 12), (12, 7), (100, 100), (6, 2), (5, 5)])
def test_figures_are_those_of_scikit_learn(classes: int, of: int) -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

    logits, labels = drawn(classes, of)
    found = evaluated(classes, of)
    predicted = logits.argmax(axis=1)
    assert found.images == IMAGES
    assert found.accuracy == accuracy_score(labels, predicted)
    assert found.interval_95 == interval(found.accuracy, IMAGES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that were predicted and are not there
        balanced = balanced_accuracy_score(labels, predicted)
    assert found.balanced_accuracy == pytest.approx(balanced)
    assert found.macro.recall == pytest.approx(balanced)
    every = np.arange(classes)
    if classes > 5:
        assert found.top_5 == top_k_accuracy_score(labels, logits, k=5, labels=every)
    else:
        assert found.top_5 is None
    assert found.expected_calibration_error == calibration_error(logits, labels, 1.5)
    assert found.model_classes == classes
    assert found.taken_for_others == (predicted >= of).sum()
    assert sum(pair.images for pair in found.confusions) == (predicted != labels).sum()
    assert json.loads(json.dumps(found.as_dict()))["per_class"][1]["name"] == "class 01"


def test_superclass_counts_what_is_taken_for_a_relative() -> None:
    names = ("lion", "wolf", "rose", "tulip", "other")
    above = {"lion": "beast", "wolf": "beast", "rose": "flower", "tulip": "flower"}
    labels = np.array([0, 0, 1, 2, 3, 0])
    predicted = np.array([0, 1, 2, 3, 3, 4])  # right, relative, wrong, relative, right, no group
    logits = np.eye(5, dtype=np.float32)[predicted]
    known = np.array([1, 1, 1, 0, 0, 0], bool)
    own = facts(5, classes=names, superclasses=above)
    found = sum_up(logits, labels, known, np.array([1, 0, 0, 0, 0, 0], bool), **own)
    assert found.superclass_accuracy == pytest.approx(4 / 6)
    assert found.accuracy == pytest.approx(2 / 6)
    assert found.taken_for_others == 1
    assert found.trained_on == 3
    assert found.unseen is not None
    assert (found.unseen.images, found.unseen.accuracy) == (3, pytest.approx(1 / 3))
    assert found.unseen.interval_95 == interval(1 / 3, 3)
    assert found.unfamiliar == pytest.approx(1 / 6)
    assert sum_up(logits, labels, np.ones(6, bool), None, **own).unseen is None
    assert evaluated().superclass_accuracy is None
    assert evaluated().unfamiliar is None


# --- lines ---------------------------------------------------------------------------------------


def test_last_line_is_the_accuracy_as_it_is_quoted() -> None:
    *_, last = table(evaluated())
    assert last == evaluated().line
    assert last.startswith("test accuracy: ")
    assert evaluated(part="val").line.startswith("validation accuracy: ")
    assert evaluated(part="all").line.startswith("overall accuracy: ")


def test_table_of_few_classes_has_all_of_them_and_their_means() -> None:
    lines = list(table(evaluated(classes=12, of=7)))
    others = evaluated(classes=12, of=7).taken_for_others
    assert lines[0] == (
        "photos, its test part: 400 images in 7 classes, each predicted as one of the model's 12, "
        f"{others} of them as a class that has no images here"
    )
    rows = [line for line in lines if line.startswith("class 0") and line.count("%") == 3]
    assert len(rows) == 7
    assert len({len(row) for row in rows}) == 1
    means = next(line for line in lines if line.startswith("mean of all classes"))
    assert f"{100 * evaluated(12, 7).balanced_accuracy:.2f} %" in means


def test_table_of_many_classes_has_the_worst_of_them() -> None:
    found = evaluated(classes=100, of=100)
    lines = list(table(found))
    start = next(at for at, line in enumerate(lines) if line.startswith("lowest F1, 10 of 100; "))
    shown = [line[:8] for line in lines[start + 1 : start + 11]]
    assert shown == [each.name for each in sorted(found.per_class, key=lambda each: each.f1)[:10]]
    assert lines[start + 11].startswith("mean of all classes")
    at = next(at for at, line in enumerate(lines) if line.startswith("most often confused, 10 of "))
    first = found.confusions[0]
    assert lines[at + 1].split("  ")[0] == first.true
    assert f"predicted as {first.predicted}  {first.images}" in lines[at + 1]
    assert lines[at + 11] == ""
    assert len(lines) < 45


def test_unreadable_images_are_listed_on_lines_of_their_own() -> None:
    lost = tuple(Unreadable(f"a/{number}\n.png", "it is cut") for number in range(12))
    lines = list(table(evaluated(unreadable=lost)))
    at = lines.index("cannot be read, 10 of 12; --json lists all")
    assert lines[at + 1].split() == ["a/0?.png", "it", "is", "cut"]
    assert lines[at + 11] == ""
    assert "cannot be read" in table(evaluated(unreadable=lost[:1]))


@pytest.mark.parametrize(
    ("known", "told"),
    [
        (0, "none of the images is among those that the model was trained or chosen on"),
        (100, "100 of 400 images (25.00 %) are among those that the model was trained or chosen"),
        (400, "all images are among those that the model was trained or chosen on, so this says"),
    ],
)
def test_images_of_the_training_data_are_told_and_left_out(known: int, told: str) -> None:
    logits, labels = drawn(12, 12)
    seen = np.arange(IMAGES) < known
    found = sum_up(logits, labels, seen, None, **facts(12))
    lines = list(table(found))
    assert any(line.startswith(told) for line in lines)
    rest = [line for line in lines if line.startswith("unseen accuracy: ")]
    if known == 100:
        share = (logits.argmax(axis=1) == labels)[100:].mean()
        assert rest[0].startswith(f"unseen accuracy: {100 * share:.2f} %")
        assert rest[0].endswith("300 images)")
    else:
        assert not rest


def test_figures_that_there_are_not_have_no_line() -> None:
    full = evaluated(superclasses={f"class {number:02d}": "one" for number in range(12)})
    assert "superclass accuracy" in "\n".join(table(full))
    plain = "\n".join(table(evaluated(classes=5, of=5)))
    for absent in ("superclass", "top-5", "unlike", "cannot be read"):
        assert absent not in plain


def test_no_confusion_is_said() -> None:
    labels = np.arange(IMAGES) % 12
    perfect = np.eye(12, dtype=np.float32)[labels]
    found = sum_up(perfect, labels, np.zeros(IMAGES, bool), None, **facts(12))
    assert "no image was predicted as another class" in table(found)
