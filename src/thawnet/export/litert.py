"""A bundle's network for phones: one .tflite file for LiteRT, and MediaPipe's image classifier."""

from __future__ import annotations

import importlib
import io
import os
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..bundle.format import Description
from ..bundle.model import Model
from ..bundle.onnx import probe_squares
from ..core import console
from ..core.errors import BundleError, first_line
from ..data.items import spread_over
from ..data.store import ImageStore
from ..training.gate import squares_of
from .int8 import CALIBRATION_IMAGES, all_squares, judged
from .probabilities import Probabilities, moved

LABELS = "labels.txt"  # inside the file, which is a ZIP archive from there on
METADATA = b"TFLITE_METADATA"
IDENTIFIER = b"M001"  # of the metadata; TFL3: of the model
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_minloglevel": "2"}


@dataclass(frozen=True)
class Quantised:
    """A network in 8-bit integers, compared with float32."""

    content: bytes
    hits: tuple[int, int]
    """Validation images named right in float32, and in int8."""
    images: int
    worse: str
    """The evidence that it is less accurate, '' if there is none."""


def to_litert(description: Description, model: Model) -> tuple[bytes, float]:
    """Return a bundle's network as a .tflite file, and its probabilities' largest error.

    Input: one image, (1, crop, crop, 3) uint8, RGB. Output: (1, classes) float32, calibrated
    probabilities. Metadata as MediaPipe and Android Studio read it names the classes. The file is
    run by LiteRT's interpreter and compared with `model`, which runs the ONNX model.
    Raises BundleError when the network cannot be converted or its answers differ.
    """
    squares = probe_squares(model.preprocess)
    content = _described(_converted(description, squares), description)
    return content, moved(_answers(content, squares), model, squares, "LiteRT")


def to_litert_int8(
    description: Description, model: Model, train: ImageStore, val: ImageStore, anyway: bool
) -> Quantised:
    """Return a bundle's network in 8-bit integers, calibrated on `train` and tested on `val`.

    Weights are quantised per channel, activations per tensor. Raises BundleError when the network
    cannot be converted, or, unless `anyway`, when it is less accurate; see int8.judged.
    """
    crop = model.preprocess.crop
    content = _converted(description, probe_squares(model.preprocess))
    rows = spread_over(len(train), CALIBRATION_IMAGES)
    rounded = _described(_quantised(content, squares_of(train, rows, crop)), description)
    exact, answers = [], []
    with console.progress("comparing", len(val)) as advance:
        for squares in all_squares(val, crop):
            exact.append(model.all_logits(squares))
            answers.append(_answers(rounded, squares, advance))
    # Of steps of 1/256, 0 included.
    logits = np.log(np.maximum(np.concatenate(answers), 1e-3)).astype(np.float32)
    hits, worse = judged(np.concatenate(exact), logits, val.labels, anyway, "take --to litert")
    return Quantised(rounded, hits, len(val), worse)


def _converted(description: Description, squares: NDArray[np.uint8]) -> bytes:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    module = Probabilities(description)
    with TemporaryDirectory(prefix="thawnet-") as scratch:
        file = Path(scratch) / "model.tflite"
        try:
            with warnings.catch_warnings(), console.without_output():
                warnings.simplefilter("ignore")  # torch's own, about itself
                converter: Any = importlib.import_module("litert_torch")
                converter.convert(module, (torch.from_numpy(squares[:1]),)).export(str(file))
        except Exception as error:  # any of timm's 1,300 models may raise anything
            raise BundleError(
                f"the network cannot be converted to LiteRT ({first_line(error)})"
            ) from error
        return file.read_bytes()


def _quantised(content: bytes, squares: NDArray[np.uint8]) -> bytes:
    """Return a .tflite file in 8-bit integers, with ranges from squares, (n, crop, crop, 3)."""
    quantizer: Any = importlib.import_module("ai_edge_quantizer.quantizer")
    recipe: Any = importlib.import_module("ai_edge_quantizer.recipe")
    known: Any = importlib.import_module("ai_edge_quantizer.qtyping").TFLOperationName
    signature, name = _signature(_interpreter(content))
    try:
        with warnings.catch_warnings(), console.without_output():
            warnings.simplefilter("ignore")
            job = quantizer.Quantizer(bytearray(content), recipe.static_wi8_ai8())
            for kind, output in _kept_in_float(content):
                if kind in known.__members__:
                    job.update_quantization_recipe(
                        regex=re.escape(output),
                        operation_name=known[kind],
                        algorithm_key="no_quantize",
                    )
            ranges = job.calibrate({signature: [{name: square[None]} for square in squares]})
            return bytes(job.quantize(ranges).quantized_model)
    except Exception as error:
        raise BundleError(
            f"the network cannot be quantised for LiteRT ({first_line(error)})"
        ) from error


def _kept_in_float(content: bytes) -> list[tuple[str, str]]:
    """Return the kind and the output of each operation up to the first convolution.

    They stay in float32, as in int8.py: the matrices that enlarge an image are wrong in integers.
    """
    tflite, network = _parsed(content)
    kinds = {number: name for name, number in vars(tflite.BuiltinOperator).items()}
    (graph,) = network.subgraphs
    found: list[tuple[str, str]] = []
    for operation in graph.operators:
        kind = kinds[network.operatorCodes[operation.opcodeIndex].builtinCode]
        found.append((kind, graph.tensors[operation.outputs[0]].name.decode()))
        if kind == "CONV_2D":
            return found
    return []


def _parsed(content: bytes) -> tuple[Any, Any]:
    """Return the module of the format, and a .tflite file's model with all weights in it."""
    tflite: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    network = tflite.ModelT.InitFromObj(tflite.Model.GetRootAsModel(bytearray(content), 0))
    for weights in network.buffers:
        if weights.offset > 1:  # they lie behind the model, where the quantizer puts them
            weights.data = np.frombuffer(content, np.uint8, weights.size, weights.offset)
            weights.offset = weights.size = 0
    return tflite, network


def _interpreter(content: bytes) -> Any:
    with console.without_output():
        module: Any = importlib.import_module("ai_edge_litert.interpreter")
        interpreter = module.Interpreter(model_content=content)
        interpreter.allocate_tensors()
    return interpreter


def _signature(interpreter: Any) -> tuple[str, str]:
    """Return the names of the only signature and of its only input."""
    ((signature, names),) = interpreter.get_signature_list().items()
    (name,) = names["inputs"]
    return signature, name


def _answers(
    content: bytes, squares: NDArray[np.uint8], advance: Any = lambda count: None
) -> NDArray[np.float32]:
    """Return the probabilities of squares, (n, classes), from LiteRT's interpreter."""
    interpreter = _interpreter(content)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = given["quantization"]
    rows = []
    for square in squares:
        interpreter.set_tensor(taken["index"], square[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"])[0].astype(np.float32))
        advance(1)
    values = np.stack(rows)
    return (values - zero) * scale if scale else values


def _described(content: bytes, description: Description) -> bytes:
    """Return a .tflite file with metadata and the classes' names in it.

    The metadata is a buffer of the model, the names are a file in a ZIP archive behind it.
    (https://ai.google.dev/edge/litert/models/metadata)
    """
    flatbuffers: Any = importlib.import_module("flatbuffers")
    tflite, network = _parsed(content)
    buffer, entry = tflite.BufferT(), tflite.MetadataT()
    buffer.data = list(_metadata(description))
    network.buffers.append(buffer)
    entry.name, entry.buffer = METADATA, len(network.buffers) - 1
    network.metadata = [*(network.metadata or []), entry]
    builder = flatbuffers.Builder(0)
    builder.Finish(network.Pack(builder), b"TFL3")
    file = io.BytesIO(bytes(builder.Output()))
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        names = "\n".join(description.meaning.classes)
        archive.writestr(zipfile.ZipInfo(LABELS), names.encode())  # without the time of day
    return file.getvalue()


def _metadata(description: Description) -> bytes:
    flatbuffers: Any = importlib.import_module("flatbuffers")
    name = "mediapipe.tasks.metadata.metadata_schema_py_generated"
    with warnings.catch_warnings(), console.without_output():
        warnings.simplefilter("ignore")
        schema: Any = importlib.import_module(name)

    def made(kind: str, **fields: object) -> Any:
        value = getattr(schema, f"{kind}T")()
        for name, field in fields.items():
            setattr(value, name, field)
        return value

    pixels = made("ImageProperties", colorSpace=schema.ColorSpaceType.RGB)
    properties = schema.ContentProperties.ImageProperties
    content = made("Content", contentProperties=pixels, contentPropertiesType=properties)
    # The network normalises pixels itself.
    as_they_are = made("NormalizationOptions", mean=[0.0], std=[1.0])
    options = schema.ProcessUnitOptions.NormalizationOptions
    unit = made("ProcessUnit", options=as_they_are, optionsType=options)
    labels = made("AssociatedFile", name=LABELS, type=schema.AssociatedFileType.TENSOR_AXIS_LABELS)
    given = made("TensorMetadata", name="image", content=content, processUnits=[unit])
    answer = made("TensorMetadata", name="probability", associatedFiles=[labels])
    whole = made("SubGraphMetadata", inputTensorMetadata=[given], outputTensorMetadata=[answer])
    backbone = description.architecture.backbone
    model = made(
        "ModelMetadata",
        name=backbone,
        description=f"{backbone} trained by thawnet; {len(description.meaning.classes)} classes",
        license=str(description.facts.get("license", "")),
        subgraphMetadata=[whole],
        minParserVersion="1.0.0",
    )
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())
