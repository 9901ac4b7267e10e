"""The estimator: scikit-learn's own tools drive it, and it predicts what training measured."""

from __future__ import annotations

import csv
import doctest
import inspect
import pickle
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

import thawnet
from support.commands import helps_of, run_without
from support.photos import draw
from support.runs import TINY
from thawnet.core.errors import RunError, ThawnetError, UsageError
from thawnet.recipe import TrainOptions
from thawnet.training import outputs, run
from thawnet.training.context import Run

if TYPE_CHECKING:
    from thawnet import Classifier

# With the weights that come with the package.
QUICK = {
    "weights": "bundled",
    "size": 32,
    "precision": "float32",
    "epochs": (10, 1),
    "lr": (0.2, 1e-4),  # few images: the head learns enough in 20 steps
}
NAMES = np.array(["rose", "daisy", "tulip"])  # sorted: daisy, rose, tulip


def striped(count: int, start: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Return `count` images of 12 x 10 pixels of each of three classes, class after class."""
    numbers = range(start, start + count)
    images = [np.asarray(draw(label, number, (10, 12))) for label in range(3) for number in numbers]
    return np.stack(images), np.repeat(NAMES, count)


X, y = striped(20)
X_TEST, Y_TEST = striped(8, start=100)


@pytest.fixture
def tiny(tiny_weights: Path) -> dict[str, Any]:
    """Return the arguments of a network that takes a second, for all other tests."""
    return {**QUICK, "backbone": TINY, "weights": tiny_weights, "epochs": (1, 1)}


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Classifier]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THAWNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield thawnet.Classifier(**QUICK, verbose=False).fit(X, y)


# --- what it predicts ----------------------------------------------------------------------------


def test_labels_come_back_as_they_were_given(fitted: Classifier) -> None:
    assert fitted.classes_.tolist() == ["daisy", "rose", "tulip"]
    found = fitted.predict(X_TEST)
    assert found.dtype == y.dtype
    assert (found == Y_TEST).mean() == fitted.score(X_TEST, Y_TEST) >= 0.7


def test_columns_are_classes_in_order_and_sum_to_1(fitted: Classifier) -> None:
    probabilities = fitted.predict_proba(X_TEST)
    assert probabilities.shape == (24, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(X_TEST)).all()
    (first,) = fitted.model_.predict([X_TEST[0]], top_k=3)
    columns = [fitted.classes_.tolist().index(name) for name in first.classes]
    assert probabilities[0, columns].tolist() == list(first.probabilities)


def test_probabilities_are_those_that_the_run_folder_holds_and_calibrated(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "helpful_temperature", lambda *_: 1.7)
    labels = np.repeat([30, 4, 12], 20)  # as text they would stand in another order
    fitted = thawnet.Classifier(**tiny, out="run", random_state=3).fit(X, labels)
    assert fitted.classes_.tolist() == [4, 12, 30]
    assert fitted.predict(X).dtype == labels.dtype
    with Path("run/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 5
    places = [int(re.fullmatch(r"X\[(\d+)]", row["image"])[1]) for row in rows]  # type: ignore[index]
    assert [str(labels[place]) for place in places] == [row["class"] for row in rows]
    column = np.searchsorted(fitted.classes_, labels[places])
    found = fitted.predict_proba(X[places])[np.arange(len(rows)), column]
    told = [float(row["probability_of_class"]) for row in rows]
    assert found == pytest.approx(told, abs=1e-3)
    assert fitted.model_.temperature == 1.7
    assert fitted.model_.path == Path("run/bundle")
    with pytest.raises(RunError, match="'run': the folder already holds"):
        fitted.fit(X, labels)


def test_every_image_trains_or_validates_and_nothing_is_left_behind(
    tiny: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    thawnet.Classifier(**tiny).fit(X, y)
    out, err = capsys.readouterr()
    assert out == ""
    told = re.search(r"arrays: 3 classes, (\d+) training and (\d+) validation images", err)
    assert told
    assert int(told[1]) + int(told[2]) == 60
    assert not list((tmp_path / "temporary").iterdir())
    assert not list(Path.cwd().iterdir())


def test_a_quiet_fit_says_nothing_and_the_seed_decides_the_network(
    tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from sklearn.base import clone

    fitted = thawnet.Classifier(**tiny, verbose=False).fit(X, y)
    before = fitted.predict_proba(X_TEST)
    same = clone(fitted).fit(X, y).predict_proba(X_TEST)
    other = clone(fitted).set_params(random_state=np.random.RandomState(7)).fit(X, y)
    assert capsys.readouterr() == ("", "")
    assert (same == before).all()
    assert (other.predict_proba(X_TEST) != before).any()


def test_images_are_mirrored_unless_that_means_something_else(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    flips: list[bool] = []

    def stop(job: Run, number: int) -> None:
        flips.append(job.origin(job.train).augment.flip)
        raise UsageError("enough")

    monkeypatch.setattr(run, "PhaseJob", stop)
    for safe in (True, False):
        with pytest.raises(UsageError, match="enough"):
            thawnet.Classifier(**tiny, mirror_safe=safe).fit(X, y)
    assert flips == [True, False]


# --- what scikit-learn does with it --------------------------------------------------------------


def test_clone_has_the_very_arguments(fitted: Classifier) -> None:
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError

    given = {"epochs": [3, 4], "lr": (np.float64(1e-3), 1e-4), "size": np.int64(64)}
    made = thawnet.Classifier(**given)  # type: ignore[arg-type]
    assert all(made.get_params()[name] is value for name, value in given.items())
    copy = clone(made)
    assert copy is not made
    assert copy.get_params() == made.get_params()
    assert copy.set_params(weights="bundled").weights == "bundled"
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


def test_cross_val_score_fits_a_pipeline_that_makes_grey_rgb_on_each_fold(
    tiny: dict[str, Any],
) -> None:
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    steps = make_pipeline(
        FunctionTransformer(lambda grey: np.repeat(grey[..., None], 3, axis=-1)),
        thawnet.Classifier(**{**tiny, "size": 64, "epochs": (10, 1)}, verbose=False),
    )
    scores = cross_val_score(steps, X[..., 0], y, cv=2, error_score="raise")
    assert scores.shape == (2,)
    assert (scores > 0.5).all()


def test_grid_search_varies_pairs_and_keeps_the_best(tiny: dict[str, Any]) -> None:
    from sklearn.model_selection import GridSearchCV

    grid = {"lr": [(1e-9, 1e-9), (0.2, 1e-4)], "size": np.array([32])}
    fold = [(np.flatnonzero(np.arange(60) % 3), np.arange(0, 60, 3))]
    search = GridSearchCV(
        thawnet.Classifier(**{**tiny, "epochs": (10, 1)}, verbose=False),
        grid,
        cv=fold,
        error_score="raise",
    )
    search.fit(X, y)
    assert search.best_params_["lr"] == (0.2, 1e-4)
    assert search.best_estimator_.score(X_TEST, Y_TEST) >= 0.7


@pytest.mark.slow
def test_search_may_run_in_several_processes(tiny: dict[str, Any]) -> None:
    from sklearn.model_selection import GridSearchCV

    grid = {"epochs": [(1, 1), (10, 1)]}
    search = GridSearchCV(thawnet.Classifier(**tiny), grid, cv=2, n_jobs=2, error_score="raise")
    assert search.fit(X, y).best_params_ == {"epochs": (10, 1)}


def test_checks_for_tables_are_left_out() -> None:
    from sklearn.utils.estimator_checks import check_estimator

    with pytest.warns(match="Can't test estimator Classifier"):
        check_estimator(thawnet.Classifier())


def test_pickled_it_predicts_the_same_where_torch_is_not_installed(
    fitted: Classifier, tmp_path: Path
) -> None:
    again: Classifier = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(X_TEST) == fitted.predict_proba(X_TEST)).all()
    (tmp_path / "fitted.pkl").write_bytes(pickle.dumps(fitted))
    np.save(tmp_path / "X.npy", X_TEST)
    code = """
import joblib, numpy
print(*joblib.load(sys.argv[1]).predict(numpy.load(sys.argv[2])))
"""
    paths = tmp_path / "fitted.pkl", tmp_path / "X.npy"
    done = run_without(("torch", "timm", "onnx"), code, *paths)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == fitted.predict(X_TEST).tolist()


# --- what is refused -----------------------------------------------------------------------------


class Word(int):
    """A number that does not say which."""

    def __str__(self) -> str:
        return "some"


SOME = np.array([Word(number % 2) for number in range(60)], dtype=object)


@pytest.mark.parametrize(
    ("images", "labels", "kind", "told"),
    [
        (X / 255, y, TypeError, r"X: received float64 of shape \(60, 12, 10, 3\); expected uint8"),
        (X[..., 0], y, ValueError, r"uint8 of shape \(60, 12, 10\); expected .*np\.repeat"),
        (X[..., :2], y, ValueError, r"of shape \(60, 12, 10, 2\); expected"),
        (X[:, :0], y, ValueError, "no pixel at all"),
        ([X[0], X[1, 1:]], y[:2], ValueError, "images are not all of one shape"),
        (X, y[1:], ValueError, r"inconsistent numbers of samples: \[60, 59\]"),
        (X, None, ValueError, "y should be a 1d array"),
        (X, np.stack([y, y], axis=1), ValueError, "y should be a 1d array"),
        (X, np.zeros(60), ValueError, "y holds 1 class; a classifier needs two or more"),
        (X, np.where(y == "rose", np.nan, 1), ValueError, r"y\[0\] is nan: every image needs"),
        (X, [*y[1:], np.nan], ValueError, r"y\[59\] is nan"),
        (X, [*y[1:], None], ValueError, r"y\[59\] is None"),
        (X, np.array([*y[1:], 7], dtype=object), TypeError, "labels cannot be sorted"),
        (X, np.arange(60) / 7, ValueError, "Unknown label type: continuous"),
        (X, SOME, ValueError, "y: 2 labels read 'some'; they must differ as text too"),
    ],
)
def test_what_can_not_be_trained_on_is_one_sentence(
    images: Any, labels: Any, kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told) as caught:
        thawnet.Classifier().fit(images, labels)
    assert "\n" not in str(caught.value).split("Unknown label type")[0]


def test_images_to_predict_are_checked_as_well(fitted: Classifier) -> None:
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        thawnet.Classifier().predict_proba(X)
    with pytest.raises(TypeError, match="received float64"):
        fitted.predict(X / 255)
    with pytest.raises(ValueError, match="received uint8 of shape"):
        fitted.predict(X[0])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"epochs": 3}, "'epochs' must be 2 values; received int 3"),
        ({"epochs": (0, 1)}, "epochs = 0: must be at least 1"),
        ({"lr": ("fast", 1)}, "'lr' must be a number; received str 'fast'"),
        ({"size": "big"}, "'size' must be a whole number; received str 'big'"),
        ({"size": 20}, "size = 20: must be 32 to 1024"),
        ({"precision": "float16"}, "'precision' must be 'auto' or 'float32' or 'bfloat16'"),
        ({"device": "gpu"}, "'device' must be 'auto' or 'cpu' or 'cuda' or 'mps'"),
        ({"recipe": "quik"}, "did you mean 'quick'"),
        ({"recipe": "seed"}, r"recipe 'seed' validates on the test part, which .*Classifier never"),
        ({"backbone": "mobilenetv2"}, "timm has no such model"),
        ({"train_from": "block_99"}, "no such layer"),
        ({"weights": Path("nowhere.st")}, "no such file"),
        ({"random_state": -1}, "seed = -1: must be 0 to 4294967295"),
    ],
)
def test_wrong_argument_is_told_by_fit(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ThawnetError, match=told):
        thawnet.Classifier(**{**QUICK, **arguments}).fit(X, y)


def test_a_stop_ends_a_search_and_is_no_run_to_go_on_with(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.model_selection import cross_val_score

    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(run, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        cross_val_score(thawnet.Classifier(**tiny, out="runs/stopped"), X, y, cv=2)
    assert [path.name for path in Path("runs").iterdir()] == ["stopped"]
    with pytest.raises(RunError, match=r"--resume 'runs/stopped': its images were in memory"):
        run.train(TrainOptions(resume=""))


def test_without_scikit_learn_the_pip_line_is_told() -> None:
    code = "import sys, thawnet; sys.modules['sklearn'] = None; thawnet.Classifier"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = "thawnet.Classifier needs packages that are not installed (sklearn): pip install"
    assert told in done.stderr.splitlines()[-1]


# --- what is written about it --------------------------------------------------------------------


def test_arguments_are_described_as_the_flags_are() -> None:
    helps = helps_of(TrainOptions)
    told = " ".join((thawnet.Classifier.__doc__ or "").split())
    for name in inspect.signature(thawnet.Classifier).parameters:
        assert f" {name}: " in told
        if helps.get(name) and name not in ("recipe", "out"):
            assert f" {name}: {' '.join(helps[name].split())} " in told


@pytest.mark.slow  # it learns 1,347 digits
def test_example_in_the_docstring_is_true() -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(
        thawnet.Classifier, "Classifier", globs={"thawnet": thawnet}
    )
    assert doctest.DocTestRunner().run(example).failed == 0
