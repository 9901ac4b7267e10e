"""A bundle's network in 8-bit integers, and the gate that it has to pass."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ..bundle.card import int8_card
from ..bundle.format import Description, write_bundle
from ..bundle.model import Model
from ..bundle.onnx import IMAGES, LOGITS
from ..bundle.padding import needed_for
from ..core import console
from ..core.errors import BundleError, first_line
from ..data.items import spread_over
from ..data.store import ImageStore
from ..metrics.accuracy import SIGNIFICANT, slices
from ..metrics.paired import count_pairs, mcnemar
from ..training.gate import GATE_TIE, agreement, squares_of

if TYPE_CHECKING:
    import onnx

CALIBRATION_IMAGES = 500  # training images, evenly spread, from which ranges are taken
CALIBRATION_BATCH = 20
GATE_LOSS = 0.005  # of the validation images: loss that int8 is allowed even beyond chance
TIMED_IMAGES = 256  # validation images on which the speed is measured
ROUNDS = 5  # of timing, alternating between both networks

# Operators computed in integers. Relu and Clip are listed so that they can be removed: after a
# convolution, the range of its quantised output does the clipping. The preprocessing in front stays
# in float32, see _kept_in_float.
CONV = "Conv"
OPERATORS = (CONV, "Gemm", "MatMul", "Add", "GlobalAveragePool", "Relu", "Clip", "Flatten")


@dataclass(frozen=True)
class Quantised:
    """An int8 network that passed the gate."""

    onnx: bytes
    figures: dict[str, Any]
    """The gate's figures, as stored under `export` in model.json."""
    worse: str = ""
    """Evidence that int8 is worse by more than chance, '' if there is none."""


def quantise(
    description: Description,
    content: bytes,
    train: ImageStore,
    val: ImageStore,
    anyway: bool = False,
) -> Quantised:
    """Return a bundle's network in int8, calibrated on images of `train` and tested on `val`.

    content: its ONNX model. Weights are quantised per output channel, activations per tensor, after
    Jacob et al. 2018 (https://arxiv.org/abs/1712.05877), in ONNX's QDQ form: the model keeps the
    types of its inputs and outputs.
    Raises BundleError when ONNX Runtime cannot quantise the network, or, unless `anyway`, when the
    result is worse, see `evidence_of_loss`.
    """
    crop = description.meaning.preprocess.crop
    rows = spread_over(len(train), CALIBRATION_IMAGES)
    with console.progress("calibrating", len(rows)) as advance:
        onnx = _static(description, content, squares_of(train, rows, crop), advance)
    models = [Model(description, each) for each in (content, onnx)]
    parts = [[model.all_logits(squares) for model in models] for squares in all_squares(val, crop)]
    exact, rounded = (np.concatenate(each) for each in zip(*parts, strict=True))
    hits, worse = judged(exact, rounded, val.labels, anyway, "keep float32")
    timed = squares_of(val, np.arange(min(len(val), TIMED_IMAGES)), crop)
    speeds = images_per_second(models, timed)
    figures = {
        "form": "onnx-int8",
        "calibration_images": len(rows),
        **asdict(agreement(exact, rounded, description.meaning.temperature)),
        "validation_accuracy": {"float32": hits[0] / len(val), "int8": hits[1] / len(val)},
        "images_per_second": {"float32": speeds[0], "int8": speeds[1]},
    }
    return Quantised(onnx, figures, worse)


def all_squares(images: ImageStore, crop: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the networks' input for all images in blocks, (n, crop, crop, 3): they may be 8 GB."""
    rows = np.arange(len(images))
    for block in slices(len(images)):
        yield squares_of(images, rows[block], crop)


def write_quantised(
    path: Path, network: Quantised, description: Description, trained_on: NDArray[np.uint64]
) -> None:
    """Write the bundle of a quantised network; description, trained_on: of the float32 one."""
    facts, backbone = dict(description.facts), description.architecture.backbone
    # These figures are those of the float32 network.
    origin = {name: facts.pop(name, None) for name in ("metrics", "export")}
    facts["export"] = network.figures
    facts["quantised_from"] = {"sha256": description.sha256, **origin}
    data, licence = str(facts["data"]["name"]), str(facts.get("license", "not stated"))
    write_bundle(
        path,
        None,
        network.onnx,
        replace(description.architecture, class_weights=None),  # they are float32
        description.meaning,
        trained_on,
        facts,
        int8_card(description.meaning, backbone, data, licence, network.figures),
    )


def judged(
    exact: NDArray[np.float32],
    rounded: NDArray[np.float32],
    labels: NDArray[np.int64],
    anyway: bool,
    instead: str,
) -> tuple[tuple[int, int], str]:
    """Return how many images are right in float32 and in int8, and the evidence of a loss, if any.

    exact, rounded: logits, as for `evidence_of_loss`. Raises BundleError if there is evidence,
    unless `anyway`; it advises to do something `instead`.
    """
    right, left = (int((logits.argmax(axis=1) == labels).sum()) for logits in (exact, rounded))
    worse = evidence_of_loss(exact, rounded, labels)
    if worse and not anyway:
        raise BundleError(
            f"in int8 {left:,} of {len(labels):,} validation images are right and in float32 "
            f"{right:,}, which is more than chance ({worse}), and nothing is written; {instead}, "
            "or write it all the same with --anyway"
        )
    return (right, left), worse


def evidence_of_loss(
    exact: NDArray[np.float32], rounded: NDArray[np.float32], labels: NDArray[np.int64]
) -> str:
    """Return the evidence that a rounded network is worse, '' if chance or GATE_LOSS explains it.

    exact, rounded: logits, (n, classes), of the same images. McNemar's exact test is applied to the
    images that become right or wrong, except those whose two top classes were nearly tied before.
    """
    shares = np.sort(softmax(exact.astype(np.float64), axis=1), axis=1)
    decided = shares[:, -1] - shares[:, -2] >= GATE_TIE
    hits = [logits.argmax(axis=1)[decided] == labels[decided] for logits in (exact, rounded)]
    pairs = count_pairs(hits[0], hits[1])
    p = mcnemar(pairs)
    if pairs.only_a - pairs.only_b <= GATE_LOSS * len(labels) or p >= SIGNIFICANT:
        return ""
    return f"{pairs.only_a:,} lost, {pairs.only_b:,} gained, McNemar p = {p:.2g}"


class _Reader:
    """Squares in batches, in the interface that ONNX Runtime's calibrator reads."""

    def __init__(self, squares: NDArray[np.uint8], advance: Callable[[int], None]) -> None:
        starts = range(0, len(squares), CALIBRATION_BATCH)
        self._batches = iter([squares[start : start + CALIBRATION_BATCH] for start in starts])
        self._advance = advance

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        self._advance(len(batch))
        return {IMAGES: batch}


def _static(
    description: Description,
    content: bytes,
    squares: NDArray[np.uint8],
    advance: Callable[[int], None],
) -> bytes:
    """Quantise an ONNX model statically."""
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory(prefix="thawnet-") as scratch:
        exact, prepared, quantised = (Path(scratch) / f"{name}.onnx" for name in "abc")
        try:
            exact.write_bytes(content)
            quantization.quant_pre_process(exact, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared,
                quantised,
                _Reader(squares, advance),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                nodes_to_exclude=_kept_in_float(onnx.load_model(prepared)),
                per_channel=True,
                # Signed activations take 1.8 times as long.
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                # An activation's range is the full range seen. Entropy, averages and the outermost
                # percentiles gave the same accuracy: docs/experiments.md.
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
            model = onnx.load_model(quantised)
        except Exception as error:  # ONNX Runtime's own exceptions share no other class
            raise BundleError(
                f"the network cannot be quantised ({first_line(error)}); use --to onnx"
            ) from error
    onnx.helper.set_model_props(model, description.meaning.marks)
    return bytes(model.SerializeToString(deterministic=True))


def _kept_in_float(model: onnx.ModelProto) -> list[str]:
    """Return the names of nodes that stay in float32.

    These are the nodes up to and including the first convolution: on three channels integers gain
    nothing, and with it in integers MobileNetV2 takes a quarter longer. The nodes that the logits
    do not depend on, such as the unfamiliarity's, are small and stay in float32 too.
    """
    needed = {node.name for node in needed_for(model.graph, {LOGITS})}
    first = next((node for node in model.graph.node if node.op_type == CONV), None)
    begins = needed_for(model.graph, set(first.output)) if first else []
    return [
        *(node.name for node in begins),
        *(node.name for node in model.graph.node if node.name not in needed),
    ]


def images_per_second(models: Sequence[Model], squares: NDArray[np.uint8]) -> list[float]:
    """Time models in turn on the same squares and all cores; return each one's median speed."""
    speeds: list[list[float]] = [[] for _ in models]
    with console.progress("timing", ROUNDS * len(models) * len(squares)) as advance:
        for _ in range(ROUNDS):
            for model, rounds in zip(models, speeds, strict=True):
                started = time.perf_counter()
                model.all_logits(squares)
                rounds.append(len(squares) / (time.perf_counter() - started))
                advance(len(squares))
    return [statistics.median(rounds) for rounds in speeds]
