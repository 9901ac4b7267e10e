"""Prediction from a bundle, with ONNX Runtime, Pillow and numpy; torch need not be installed."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from .. import embedded
from ..core.errors import BundleError, ImageError, UsageError, first_line
from ..core.memory import available_cores
from ..core.text import counted, escaped
from ..image.preprocess import Preprocess
from .class_maps import class_map, read_class_weights
from .format import Description, read_description, read_onnx
from .meaning import Unfamiliar
from .onnx import FEATURE_MAP, FEATURES, IMAGES, LOGITS, UNFAMILIARITY
from .picture import Box, Picture, cut_square, require_several
from .session import open_session

T = TypeVar("T")

# Each thread decodes and computes its own images, few enough to stay in its core's caches: 880 to
# 1,410 images/s at 96 px on 2 cores in batches of 8, 620 to 1,170 in batches of 16 (MobileNetV2,
# three runs beside other work). With both threads on each operator, ONNX Runtime's default, 410 to
# 1,100: the threads wait for each other whenever one is held up.
BATCH = 8
BATCH_PIXELS = BATCH * 224 * 224
AHEAD = 4  # batches in flight per thread, so that a slow one does not stall the others at once


@dataclass(frozen=True)
class Explanation:
    """Where in an image the network saw the classes that it names."""

    box: Box
    """The square that the network saw: its edges as fractions of the upright image."""
    maps: NDArray[np.float32]
    """(k, h, w), 0 to 1, row by row from the top of that square; see class_maps.class_map."""


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image."""

    classes: tuple[str, ...]
    """Names, the most probable first."""
    probabilities: tuple[float, ...]
    """Of these classes, 0 to 1."""
    unfamiliar: bool | None = None
    """Whether the image is unlike the training data; None where the network cannot tell."""
    explanation: Explanation | None = None
    """Set if it was requested and the network has class maps."""
    features: NDArray[np.float32] | None = None
    """(d,), see Model.features; set if they were requested."""

    @property
    def mark(self) -> str:
        """`unfamiliar` as a CSV cell: 'true', 'false', or '' where the network cannot tell."""
        return "" if self.unfamiliar is None else str(self.unfamiliar).lower()

    def as_dict(self, top_k: int | None = None) -> dict[str, Any]:
        """Return the JSON of `predict --json` and of the service, probabilities to six digits.

        top_k: number of classes; by default all.
        """
        rows = [
            {"class": name, "probability": float(f"{probability:.6g}")}
            for name, probability in zip(self.classes, self.probabilities, strict=True)
        ]
        return {"predictions": rows[:top_k], "unfamiliar": self.unfamiliar}


@dataclass(frozen=True)
class Outputs:
    """The network's outputs for n images."""

    logits: NDArray[np.float32]
    """(n, classes), before division by the temperature."""
    unfamiliarity: NDArray[np.float32] | None
    """(n,), higher is less like the training data; None where the network has none."""
    feature_map: NDArray[np.float32] | None = None
    """(n, channels, h, w), if it was requested."""
    features: NDArray[np.float32] | None = None
    """(n, d), if they were requested."""

    def each(self) -> Iterator[Outputs]:
        """Yield the outputs of each image in turn, with n = 1."""
        for row in range(len(self.logits)):
            yield Outputs(
                self.logits[[row]],
                None if self.unfamiliarity is None else self.unfamiliarity[[row]],
                None if self.feature_map is None else self.feature_map[[row]],
                None if self.features is None else self.features[[row]],
            )


class Model:
    """A network opened with `load`.

    path: its bundle. backbone: timm's name. classes: names in the order of the logits.
    preprocess: how images are prepared. temperature: divisor of the logits before the softmax,
    fitted on the validation images. unfamiliar: the threshold above which an image counts as unlike
    the training data, None where the network cannot tell. batch: images that one thread computes at
    once. threads: number of threads.

    A pickled model contains the network. Unless `load` was given a number of threads, the unpickled
    model uses one per available core.
    """

    def __init__(
        self, description: Description, content: bytes, threads: int | None = None
    ) -> None:
        """Open `content`, a model.onnx; raise BundleError if it does not match `description`."""
        self.path: Path = description.path
        self.backbone: str = description.architecture.backbone
        self.classes: tuple[str, ...] = description.meaning.classes
        self.preprocess: Preprocess = description.meaning.preprocess
        self.temperature: float = description.meaning.temperature
        self.unfamiliar: Unfamiliar | None = description.meaning.unfamiliar
        self._session = open_session(description, content)
        self.threads = threads or available_cores()
        # Includes model.onnx: the bundle may be gone by the time this is pickled.
        self._made_of = (description, content, threads)
        self.batch = max(1, min(BATCH, BATCH_PIXELS // self.preprocess.size**2))

    def __reduce__(self) -> tuple[type[Model], tuple[Description, bytes, int | None]]:
        """Make pickle reopen the network, since ONNX Runtime's session cannot be copied."""
        return Model, self._made_of

    @cached_property
    def class_weights(self) -> NDArray[np.float32] | None:
        """Weights that turn the feature map into class maps, (classes, channels), or None.

        Raises BundleError as class_maps.read_class_weights does.
        """
        return read_class_weights(self._made_of[0])

    @property
    def facts(self) -> dict[str, Any]:
        """The other content of model.json: recipe, metrics, provenance; unchecked, for people."""
        return self._made_of[0].facts

    def __repr__(self) -> str:
        shown = ", ".join(self.classes[:4]) + ", ..." * (len(self.classes) > 4)
        return f"<thawnet {self.summary}\n  {shown}>"

    @property
    def summary(self) -> str:
        """One-line description of the network."""
        name = "embedded" if self.path == embedded.BUNDLE else self.path
        return (
            f"model {name}: {self.backbone}, {len(self.classes):,} classes, "
            f"{self.preprocess.size} px"
        )

    def predict(
        self, images: Iterable[Picture], top_k: int = 5, explain: bool = False
    ) -> list[Prediction]:
        """Return a prediction for each image, in order.

        images: paths, encoded bytes or functions that return them, Pillow images, or uint8 arrays,
        (height, width, 3) RGB or (height, width).
        top_k: number of classes to name; all if there are fewer. explain: also return where each
        was seen, if the network has class maps.
        Raises ImageError naming the first image that cannot be read, and UsageError for a top_k
        below 1 and for a single image that is not in a list.
        """
        return self._all(images, top_k, explain)

    def features(self, images: Iterable[Picture]) -> NDArray[np.float32]:
        """Return the input of the head, (n, d): what the network sees in each image, in order.

        Images that look alike have similar features, also where the network knows no class of them.
        images: as for `predict`.
        Raises ImageError naming the first image that cannot be read, and UsageError where there is
        no image or a single one that is not in a list.
        """
        rows = [found.features for found in self._all(images, features=True)]
        if not rows:
            raise UsageError("no images: features have a width only where there is an image")
        return np.stack(cast("list[NDArray[np.float32]]", rows))

    def _all(
        self,
        images: Iterable[Picture],
        top_k: int = 5,
        explain: bool = False,
        features: bool = False,
    ) -> list[Prediction]:
        """Return what `stream` yields. Raises ImageError naming the first unreadable image."""
        names: list[str] = []

        def noted(images: Iterable[Picture]) -> Iterator[Picture]:
            for number, image in enumerate(images, start=1):
                name = f" ({escaped(str(image))})" if isinstance(image, str | Path) else ""
                names.append(f"image {number}{name}")
                yield image

        predictions: list[Prediction] = []
        require_several(images)
        for found in self.stream(noted(images), top_k, explain, features):
            if isinstance(found, ImageError):
                raise ImageError(f"{names[len(predictions)]}: {found}")
            predictions.append(found)
        return predictions

    def stream(
        self,
        images: Iterable[Picture],
        top_k: int = 5,
        explain: bool = False,
        features: bool = False,
    ) -> Iterator[Prediction | ImageError]:
        """Yield for each image, in order, a prediction or the error that prevented it.

        Like `predict`, for any number of images: they are taken as needed, at most AHEAD batches
        per thread in advance, and each thread decodes one image at a time. features: also return
        the features of each.
        """
        require_several(images)
        if top_k < 1:
            raise UsageError(f"top_k = {top_k}: must be at least 1")
        return self._streamed(
            images, lambda batch: self.predict_batch(batch, top_k, explain, features)
        )

    def stream_outputs(self, images: Iterable[Picture]) -> Iterator[Outputs | ImageError]:
        """Yield for each image, in order, its outputs (n = 1) or an error, as `stream` does."""
        return self._streamed(
            images, lambda batch: self._computed(batch, lambda outputs, _box: outputs)
        )

    def predict_batch(
        self,
        images: Sequence[Picture],
        top_k: int = 5,
        explain: bool = False,
        features: bool = False,
    ) -> list[Prediction | ImageError]:
        """Return what `stream` yields for a few images, as one batch in the calling thread."""

        def finish(outputs: Outputs, box: Box) -> Prediction:
            return self._prediction(outputs, box, top_k)

        return self._computed(images, finish, explain, features)

    def outputs(
        self, squares: NDArray[np.uint8], maps: bool = False, features: bool = False
    ) -> Outputs:
        """Return the outputs for (n, crop, crop, 3) uint8, as preprocess.squared cuts them.

        maps: include the feature map, if there are `class_weights`. features: include them.
        Raises BundleError if the network fails, or gives other shapes or non-finite logits.
        """
        count = len(squares)
        expected: dict[str, tuple[int, ...]] = {LOGITS: (count, len(self.classes))}
        if self.unfamiliar is not None:
            expected[UNFAMILIARITY] = (count,)
        if maps and self.class_weights is not None:
            expected[FEATURE_MAP] = (count, self.class_weights.shape[1])  # any height and width
        if features:
            expected[FEATURES] = (count,)  # any d
        try:
            values = self._session.run(list(expected), {IMAGES: squares})
        except Exception as error:  # ONNX Runtime's exceptions have no narrower base class
            raise BundleError(
                f"'{self.path}': the network cannot be computed ({first_line(error)}); train again"
            ) from error
        arrays = dict(zip(expected, values, strict=True))
        shapes = {name: array.shape[: len(expected[name])] for name, array in arrays.items()}
        if shapes != expected or not np.isfinite(arrays[LOGITS]).all():
            raise BundleError(
                f"'{self.path}': the network gives {shapes} for {counted(count, 'image')}, "
                f"or no finite numbers, where {expected} are expected; copy it again, or train"
            )
        return Outputs(
            arrays[LOGITS],
            arrays.get(UNFAMILIARITY),
            arrays.get(FEATURE_MAP),
            arrays.get(FEATURES),
        )

    def all_logits(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits of any number of squares, computed in batches by all threads."""
        starts = range(0, len(squares), self.batch)
        batches = [squares[start : start + self.batch] for start in starts]
        with ThreadPoolExecutor(self.threads) as pool:
            return np.concatenate([each.logits for each in pool.map(self.outputs, batches)])

    def _streamed(
        self, images: Iterable[Picture], compute: Callable[[list[Picture]], list[T]]
    ) -> Iterator[T]:
        source = iter(images)
        waiting: deque[Future[list[T]]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            while batch := list(itertools.islice(source, self.batch)):
                waiting.append(pool.submit(compute, batch))
                if len(waiting) >= AHEAD * self.threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _computed(
        self,
        images: Sequence[Picture],
        finish: Callable[[Outputs, Box], T],
        maps: bool = False,
        features: bool = False,
    ) -> list[T | ImageError]:
        """Return the result of `finish` for each image's outputs (n = 1), or the image's error."""
        cuts = [cut_square(image, self.preprocess) for image in images]
        squares = [cut[0] for cut in cuts if not isinstance(cut, ImageError)]
        found = self.outputs(np.stack(squares), maps, features).each() if squares else iter(())
        return [cut if isinstance(cut, ImageError) else finish(next(found), cut[1]) for cut in cuts]

    def _prediction(self, outputs: Outputs, box: Box, top_k: int) -> Prediction:
        logits = outputs.logits[0]
        # Stable, so that ties are in the order of the classes.
        order = np.argsort(-logits, kind="stable")[:top_k]
        unfamiliar = explanation = None
        if self.unfamiliar is not None and outputs.unfamiliarity is not None:
            unfamiliar = bool(outputs.unfamiliarity[0] > self.unfamiliar.above)
        if outputs.feature_map is not None and self.class_weights is not None:
            maps = [class_map(outputs.feature_map[0], self.class_weights[row]) for row in order]
            explanation = Explanation(box, np.stack(maps))
        return Prediction(
            tuple(self.classes[row] for row in order),
            tuple(softmax(outputs.logits / self.temperature)[0, order].tolist()),
            unfamiliar,
            explanation,
            None if outputs.features is None else outputs.features[0],
        )


def load(path: str | Path | None = None, threads: int | None = None) -> Model:
    """Open a bundle, or the bundle of a run folder, to predict with it.

    path: by default the embedded network, for the 100 classes of CIFAR-100. threads: number of
    threads that decode and compute; by default one per core that this process may use.
    Raises BundleError when the bundle is missing, damaged, of another format or inconsistent:
    model.onnx must match its SHA-256 in model.json, and both must have the same classes and
    preprocessing.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads = {threads}: must be at least 1")
    description = read_description(embedded.BUNDLE if path is None else Path(path))
    return Model(description, read_onnx(description), threads)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities, (n, classes), that sum to 1."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
