"""The two-phase training as a scikit-learn estimator, for images in memory."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from numbers import Integral
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .core import console
from .core.errors import InterruptedRunError
from .core.packages import TRAIN_PACKAGES, require_installed
from .recipe import TrainOptions

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d
except ImportError:
    require_installed("thawnet.Classifier", TRAIN_PACKAGES)
    raise


class Classifier(ClassifierMixin, BaseEstimator):
    """Train on arrays in two phases: learn a head on the frozen network, then fine-tune.

    X: (n, height, width, 3) uint8, RGB. y: (n,) labels that can be sorted, such as str or int.
    What an argument does not say (None), the recipe decides, as in `thawnet train`.

    recipe: quick, full, full-gpu, or a .toml file that validates on no test part.
    None: quick; on a GPU full.
    weights: The pretrained weights: 'imagenet' (timm's, the default), 'keras', 'bundled' (the
    embedded network); a .safetensors, PyTorch or Keras file; a run or bundle, to start from your
    own network; a model on the Hugging Face hub, hf-hub:OWNER/NAME, or a folder of one; a URL.
    backbone: The network, by timm's name; `thawnet backbones` lists some. Default: mobilenetv2_100.
    size: Side of the network's input. Default: chosen from the weights' and the images' sizes.
    train_from: The first layer that fine-tuning trains: 'upper', 'middle' or 'all', a timm name, or
    a Keras name or index.
    epochs: Epochs of the two phases; 0 for the second trains the head alone. If it trains, few
    photos are no longer cross-validated; some are held back instead.
    lr: Largest learning rates of the two phases.
    balance: Give every class the same weight in the loss, whatever its number of images.
    mirror_safe: False where a mirrored image means something else, as for digits: none is shown.
    random_state: Seed of the initial weights, the shuffles and the training views. None: the
    recipe's seed, so that the same call gives the same network.
    device: Where to compute. auto: on an NVIDIA GPU if there is one, else on the CPU. Apple's mps
    is used only if you ask for it.
    precision: Number format of activations. auto, the default: bfloat16 where the hardware
    supports it.
    out: The run folder, new or empty, with its log, plot and bundle. None: a temporary one, removed
    when `fit` is done; a search over parameters, which fits many times, needs that.
    verbose: Whether `fit` reports its progress on stderr.

    After `fit`: classes_, the labels in order, and model_, the thawnet.Model that predicts (its
    `path` is gone if `out` is None). A fitted classifier can be pickled, with the network in it,
    and predicts where PyTorch is not installed. Up to 1,000 images are cross-validated; of more, or
    with `epochs`, a tenth validates. That selects epochs and calibrates probabilities; nothing is
    held back as a test part. What frozen layers give is
    cached (`thawnet cache list`), so a search over rates and epochs computes it once a fold.
    Threads of one process fit one after another; processes fit side by side.

    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> import thawnet
    >>> images, digits = load_digits(return_X_y=True)
    >>> grey = (images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    >>> X = np.repeat(grey[..., None], 3, axis=-1)
    >>> X.shape
    (1797, 8, 8, 3)
    >>> X_train, X_test, y_train, y_test = train_test_split(
    ...     X, digits, stratify=digits, random_state=0
    ... )
    >>> classifier = thawnet.Classifier(
    ...     weights="bundled", size=64, epochs=(2, 2), mirror_safe=False
    ... )
    >>> classifier.fit(X_train, y_train).score(X_test, y_test) > 0.9
    True
    >>> classifier.predict_proba(X_test).shape
    (450, 10)
    """

    def __init__(
        self,
        recipe: str | None = "quick",
        backbone: str | None = None,
        size: int | None = None,
        weights: str | PathLike[str] | None = None,
        train_from: str | None = None,
        epochs: tuple[int, int] | None = None,
        lr: tuple[float, float] | None = None,
        balance: bool = False,
        mirror_safe: bool = True,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        precision: str | None = None,
        out: str | PathLike[str] | None = None,
        verbose: bool = True,
    ) -> None:
        self.recipe = recipe
        self.backbone = backbone
        self.size = size
        self.weights = weights
        self.train_from = train_from
        self.epochs = epochs
        self.lr = lr
        self.balance = balance
        self.mirror_safe = mirror_safe
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.out = out
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train, and keep the network that predicts.

        Raises ValueError or TypeError where X or y cannot be trained on, ThawnetError where an
        argument is wrong or training fails, KeyboardInterrupt when it is stopped.
        """
        require_installed("thawnet.Classifier", TRAIN_PACKAGES)
        from .bundle.model import load
        from .data.sources.arrays import from_arrays
        from .training.run import train

        images = _images(X)
        classes, labels = _encoded(y)
        check_consistent_length(images, labels)
        source = from_arrays(images, labels, _names(classes), bool(self.mirror_safe))
        with _folder(self.out) as out, nullcontext() if self.verbose else console.muted():
            try:
                outcome = train(self._options(out), source)
            except InterruptedRunError as error:
                # A search goes on with the next fit after any other error.
                raise KeyboardInterrupt("fit was stopped") from error
            self.model_ = load(outcome.folder)
        self.classes_ = classes
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each image, (n,), of the kind that `fit` was given.

        X: as in `fit`, of any height and width. Raises NotFittedError before `fit`.
        """
        probabilities = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return calibrated probabilities, (n, classes), in the order of classes_.

        X: as in `fit`, of any height and width. Raises NotFittedError before `fit`.
        """
        check_is_fitted(self)
        images = _images(X)
        columns = {name: column for column, name in enumerate(self.model_.classes)}
        probabilities = np.empty((len(images), len(columns)))
        predictions = self.model_.predict(images, top_k=len(columns))
        for row, prediction in zip(probabilities, predictions, strict=True):
            row[[columns[name] for name in prediction.classes]] = prediction.probabilities
        return probabilities

    def _options(self, out: Path) -> TrainOptions:
        """Return the call that the arguments make. Raises UsageError for a wrong kind of value."""
        same = ("backbone", "size", "train_from", "epochs", "lr", "balance", "device", "precision")
        arguments = {name: _plain(getattr(self, name)) for name in ("recipe", "weights", *same)}
        seed = self.random_state
        if seed is not None and not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31)
        return TrainOptions(**arguments, seed=_plain(seed), out=out, no_test=True)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that X is not a table: it has four dimensions."""
        tags = super().__sklearn_tags__()  # type: ignore[no-untyped-call] # scikit-learn has no types
        tags.input_tags.two_d_array = False
        return tags


@contextmanager
def _folder(out: str | PathLike[str] | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="thawnet-") as folder:
        yield Path(folder)


def _images(X: ArrayLike) -> NDArray[np.uint8]:
    """Return X as an array. Raises ValueError or TypeError unless it holds images."""
    try:
        images = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"X: its images are not all of one shape ({error})") from error
    expected = "expected uint8, 0 to 255, of shape (images, height, width, 3)"
    received = f"X: received {images.dtype} of shape {images.shape}"
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"{received}; {expected}: grey images become so: np.repeat(X[..., None], 3, axis=-1)"
        )
    if images.dtype != np.uint8:
        raise TypeError(f"{received}; {expected}: scale the values, round, and use astype('uint8')")
    if not images.size:
        raise ValueError(f"{received}, no pixel at all; {expected}")
    return images


def _encoded(y: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the classes in order and each image's position among them."""
    labels = column_or_1d(y, warn=True)
    try:
        # From y itself: numpy makes the text 'nan' of a NaN among strings.
        for position, label in enumerate(np.asarray(y, dtype=object).ravel()):
            if label is None or label != label:
                raise ValueError(f"y[{position}] is {label}: every image needs a label")
        classes, positions = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise TypeError(
            f"y: its labels cannot be sorted ({error}); give all images labels of one kind"
        ) from error
    if labels.dtype.kind == "f":
        check_classification_targets(labels)
    if len(classes) < 2:
        raise ValueError(f"y holds {len(classes)} class; a classifier needs two or more")
    return classes, positions.astype(np.int64)


def _names(classes: NDArray[Any]) -> list[str]:
    """Return the names of the classes in the network's bundle."""
    names = [str(label) for label in classes.tolist()]
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"y: {count} labels read '{name}'; they must differ as text too")
    return names


def _plain(value: Any) -> Any:
    """Return an argument as the command line gives it: a grid holds numpy's numbers, or lists."""
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
