"""Prediction from a bundle, with ONNX Runtime, Pillow and numpy; torch need not be installed."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import embedded
from ..core.errors import BundleError, ImageError, UsageError, first_line
from ..core.memory import available_cores
from ..core.text import counted
from ..image.decode import decode, read_file, upright_rgb
from ..image.preprocess import Preprocess, seen_box, squared
from .class_maps import class_map, read_class_weights
from .format import Description, read_description, read_onnx
from .meaning import Unfamiliar
from .onnx import FEATURE_MAP, IMAGES, LOGITS, UNFAMILIARITY
from .session import open_session

# The last gives encoded bytes when a thread is ready for them; it may raise ImageError or OSError.
Picture = str | Path | bytes | Image.Image | NDArray[np.uint8] | Callable[[], bytes]
Box = tuple[float, float, float, float]  # left, top, right, bottom; see preprocess.seen_box
Found = TypeVar("Found")

# Each thread decodes and computes some images of its own, few enough to stay in its core's caches:
# 880 to 1,410 images/s of 96 px on 2 cores with 8 at a time, 620 to 1,170 with 16 (MobileNetV2,
# three runs with other work beside). With both threads on each operator, as is ONNX Runtime's
# way, 410 to 1,100: they wait for each other whenever one is held up.
BATCH = 8
BATCH_PIXELS = BATCH * 224 * 224
AHEAD = 4  # batches under way per thread: one that is slow does not make the others wait at once


@dataclass(frozen=True)
class Explanation:
    """What the network saw of an image, and where in that the classes named.

    box: left, top, right and bottom of the square that it saw, as shares of the upright image.
    maps: (k, h, w), 0 to 1, see class_maps.class_map; row by row from the top of the square.
    """

    box: Box
    maps: NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    classes: names, the most probable first. probabilities: theirs, 0 to 1, in that order.
    unfamiliar: whether the image is unlike those trained on; None where the network cannot tell.
    explanation: where it was asked for and the network has class maps.
    """

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    unfamiliar: bool | None = None
    explanation: Explanation | None = None

    def as_list(self) -> list[dict[str, Any]]:
        """Return plain values, as they stand in JSON: [{"class": name, "probability": 0.97}]."""
        pairs = zip(self.classes, self.probabilities, strict=True)
        return [{"class": name, "probability": share} for name, share in pairs]

    def as_dict(self, top_k: int | None = None) -> dict[str, Any]:
        """Return what `predict --json` and the service say: predictions, and unfamiliar if known.

        top_k: classes to name, all that there are without it. Probabilities to six digits.
        """
        rows = [
            {**row, "probability": float(f"{row['probability']:.6g}")}
            for row in self.as_list()[:top_k]
        ]
        told = {} if self.unfamiliar is None else {"unfamiliar": self.unfamiliar}
        return {"predictions": rows, **told}


@dataclass(frozen=True)
class Outputs:
    """What the network gives for some images.

    logits: (n, classes), not divided by the temperature yet. unfamiliarity: (n,), the higher the
    less like the training data; None where the network has none. feature_map: (n, channels, h, w),
    if it was asked for.
    """

    logits: NDArray[np.float32]
    unfamiliarity: NDArray[np.float32] | None
    feature_map: NDArray[np.float32] | None = None

    def each(self) -> list[Outputs]:
        """Return the outputs of one image after the other, so n is 1 in each."""
        strange, seen = self.unfamiliarity, self.feature_map
        return [
            Outputs(
                self.logits[[row]],
                None if strange is None else strange[[row]],
                None if seen is None else seen[[row]],
            )
            for row in range(len(self.logits))
        ]


class Model:
    """A network that was opened with `load`.

    path: its bundle. backbone: timm's name. classes: names in the order of the logits.
    preprocess: what happens to an image. temperature: what logits are divided by before they
    become probabilities, fitted on the validation images. unfamiliar: above which unfamiliarity an
    image counts as unlike the training data, None where the network cannot tell. batch: images
    that one thread computes at once. threads: how many do.

    It can be pickled, with the network in it. Unless `load` was told how many, it computes in as
    many threads as there are cores where it is read again.
    """

    def __init__(
        self, description: Description, content: bytes, threads: int | None = None
    ) -> None:
        """content: model.onnx. Raises BundleError as `load` does where the two do not fit."""
        self.path: Path = description.path
        self.backbone: str = description.architecture.backbone
        self.classes: tuple[str, ...] = description.meaning.classes
        self.preprocess: Preprocess = description.meaning.preprocess
        self.temperature: float = description.meaning.temperature
        self.unfamiliar: Unfamiliar | None = description.meaning.unfamiliar
        self._session = open_session(description, content)
        self.threads = threads or available_cores()
        # model.onnx among it: the bundle may be gone by the time that this is pickled.
        self._made_of = (description, content, threads)
        self.batch = max(1, min(BATCH, BATCH_PIXELS // self.preprocess.size**2))

    def __reduce__(self) -> tuple[type[Model], tuple[Description, bytes, int | None]]:
        """Let pickle open the network again: ONNX Runtime's session cannot be copied."""
        return Model, self._made_of

    @cached_property
    def class_weights(self) -> NDArray[np.float32] | None:
        """What makes class maps of the feature map, (classes, channels); None where nothing does.

        Raises BundleError as class_maps.read_class_weights does.
        """
        return read_class_weights(self._made_of[0])

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        where = "embedded" if self.path == embedded.BUNDLE else self.path
        return (
            f"model {where}: {self.backbone}, {len(self.classes):,} classes, "
            f"{self.preprocess.size} px"
        )

    def predict(
        self, images: Iterable[Picture], top_k: int = 5, explain: bool = False
    ) -> list[Prediction]:
        """Return a prediction for each image, in order.

        images: paths, encoded bytes or functions that return them, Pillow images, or uint8 arrays,
        (height, width, 3) RGB or (height, width).
        top_k: how many classes to name; all where there are fewer. explain: where each was seen
        too, if the network has class maps.
        Raises ImageError naming the first image that cannot be read, UsageError for a wrong
        top_k.
        """
        found: list[Prediction] = []
        for number, each in enumerate(self.stream(images, top_k, explain)):
            if isinstance(each, ImageError):
                raise ImageError(f"image {number + 1}: {each}")
            found.append(each)
        return found

    def stream(
        self, images: Iterable[Picture], top_k: int = 5, explain: bool = False
    ) -> Iterator[Prediction | ImageError]:
        """Yield for each image, in order, a prediction or the error that says why there is none.

        As `predict`, for any number of images: they are taken as they are needed, at most AHEAD
        batches a thread, and of those a thread decodes one at a time.
        """
        if top_k < 1:
            raise UsageError(f"--top-k {top_k}: must be at least 1")
        return self._mapped(images, partial(self.predict_batch, top_k=top_k, explain=explain))

    def stream_outputs(self, images: Iterable[Picture]) -> Iterator[Outputs | ImageError]:
        """Yield for each image, in order, its outputs (n is 1) or an error, as `stream` does."""
        return self._mapped(
            images, lambda some: self._some(some, False, lambda found, _boxes: found.each())
        )

    def predict_batch(
        self, images: Sequence[Picture], top_k: int = 5, explain: bool = False
    ) -> list[Prediction | ImageError]:
        """Return what `stream` yields for a few images, computed at once and by this thread."""
        return self._some(images, explain, partial(self._best, top_k))

    def outputs(self, squares: NDArray[np.uint8], maps: bool = False) -> Outputs:
        """Return what is found in (n, crop, crop, 3) uint8, as preprocess.squared cuts them.

        maps: the feature map too, if `class_weights` make class maps of it.
        Raises BundleError for a network that cannot be computed or gives no numbers.
        """
        wanted: dict[str, tuple[int, ...]] = {LOGITS: (len(squares), len(self.classes))}
        if self.unfamiliar is not None:
            wanted[UNFAMILIARITY] = (len(squares),)
        names = list(wanted)
        if maps and self.class_weights is not None:
            names.append(FEATURE_MAP)
        try:
            given = self._session.run(names, {IMAGES: squares})
        except Exception as error:  # ONNX Runtime's own exceptions share no other class
            raise BundleError(
                f"'{self.path}': the network cannot be computed ({first_line(error)}); train again"
            ) from error
        found = dict(zip(names, given, strict=True))
        shapes = {name: found[name].shape for name in wanted}
        feature_map = found.get(FEATURE_MAP)
        if feature_map is not None and self.class_weights is not None:
            wanted[FEATURE_MAP] = (len(squares), self.class_weights.shape[1])
            shapes[FEATURE_MAP] = feature_map.shape[:2]
        if shapes != wanted or not np.isfinite(found[LOGITS]).all():
            raise BundleError(
                f"'{self.path}': the network gives {shapes} for {counted(len(squares), 'image')}, "
                f"or no finite numbers, where {wanted} are expected; copy it again, or train"
            )
        return Outputs(found[LOGITS], found.get(UNFAMILIARITY), feature_map)

    def _mapped(
        self,
        images: Iterable[Picture],
        work: Callable[[list[Picture]], Sequence[Found | ImageError]],
    ) -> Iterator[Found | ImageError]:
        """Yield for each image what `work`, which takes a batch of them, makes of it."""
        source = iter(images)
        waiting: deque[Future[Sequence[Found | ImageError]]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            while some := list(itertools.islice(source, self.batch)):
                waiting.append(pool.submit(work, some))
                if len(waiting) >= AHEAD * self.threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def all_logits(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits of one square or any number: each thread takes some at a time."""
        starts = range(0, len(squares), self.batch)
        pieces = [squares[start : start + self.batch] for start in starts]
        with ThreadPoolExecutor(self.threads) as pool:
            found = [each.logits for each in pool.map(self.outputs, pieces)]
        return np.concatenate(found)

    def _square(self, image: Picture) -> tuple[NDArray[np.uint8], Box] | ImageError:
        """Return what the network sees of an image, and where that lies in it."""
        try:
            opened = _opened(image, self.preprocess.side)
            box = seen_box(*opened.size, self.preprocess)
            return squared(opened, self.preprocess), box
        except ImageError as error:
            return error
        except FileNotFoundError:
            return ImageError("no such file")
        except OSError as error:
            return ImageError(error.strerror or str(error))
        except ValueError as error:  # a path with a zero byte in it
            return ImageError(str(error))

    def _some(
        self,
        images: Sequence[Picture],
        maps: bool,
        finish: Callable[[Outputs, list[Box]], Sequence[Found]],
    ) -> list[Found | ImageError]:
        """Return what `finish` makes of each image's outputs, or the error that says why not."""
        read = [self._square(image) for image in images]
        seen = [each for each in read if not isinstance(each, ImageError)]
        found: Iterator[Found] = iter(())
        if seen:
            outputs = self.outputs(np.stack([pixels for pixels, _ in seen]), maps)
            found = iter(finish(outputs, [box for _, box in seen]))
        return [each if isinstance(each, ImageError) else next(found) for each in read]

    def _best(self, top_k: int, found: Outputs, boxes: list[Box]) -> list[Prediction]:
        probabilities = softmax(found.logits / self.temperature)
        # Stable, so that equal ones stand in the order of the classes.
        order = np.argsort(-found.logits, axis=1, kind="stable")[:, :top_k]
        strange: list[bool | None] = [None] * len(order)
        if self.unfamiliar is not None and found.unfamiliarity is not None:
            strange = (found.unfamiliarity > self.unfamiliar.above).tolist()
        return [
            Prediction(
                tuple(self.classes[place] for place in places),
                tuple(float(probabilities[row, place]) for place in places),
                strange[row],
                self._explained(found, row, order[row], boxes[row]),
            )
            for row, places in enumerate(order.tolist())
        ]

    def _explained(
        self, found: Outputs, row: int, places: NDArray[np.intp], box: Box
    ) -> Explanation | None:
        if found.feature_map is None or self.class_weights is None:
            return None
        maps = [class_map(found.feature_map[row], self.class_weights[place]) for place in places]
        return Explanation(box, np.stack(maps))


def load(path: str | Path | None = None, threads: int | None = None) -> Model:
    """Open a bundle, or the bundle of a run folder, to predict with it.

    path: without one it is the embedded network, for the 100 classes of CIFAR-100. threads: that
    decode and compute; by default one per core that this process may use.
    Raises BundleError when the bundle is missing, damaged, of another format, or does not hold
    together: model.onnx is checked against its SHA-256 in model.json, and the classes and
    preprocessing of the one against the other.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads = {threads}: must be at least 1")
    description = read_description(embedded.BUNDLE if path is None else Path(path))
    return Model(description, read_onnx(description), threads)


def _opened(image: Picture, side: int) -> Image.Image:
    if isinstance(image, str | Path):
        return decode(read_file(Path(image)), side)
    if callable(image):
        image = image()
    if isinstance(image, bytes):
        return decode(image, side)
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3))
        or not image.size
    ):
        shown = getattr(image, "shape", ""), getattr(image, "dtype", type(image).__name__)
        raise ImageError(
            f"received {shown[0]} {shown[1]}; expected a path, encoded bytes, a Pillow image, or a "
            "uint8 array, (height, width, 3) or (height, width)"
        )
    return upright_rgb(Image.fromarray(image))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities, (n, classes), that sum to 1."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
