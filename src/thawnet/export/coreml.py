"""A bundle's network for Apple's devices: a .mlpackage for Core ML and Vision."""

from __future__ import annotations

import importlib
import shutil
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..bundle.format import Description
from ..bundle.model import Model
from ..bundle.onnx import probe_squares
from ..core import console
from ..core.errors import BundleError, ThawnetError, first_line
from ..core.files import new_folder
from .probabilities import Probabilities, moved

INPUT = "image"


def to_coreml(description: Description, model: Model, out: Path) -> str:
    """Write a bundle's network as a .mlpackage, and return how far it was checked.

    Input: `image`, crop x crop pixels, RGB. Outputs: the most probable class and the calibrated
    probability of each. Only a Mac can run it, and compares it with `model` here; elsewhere
    its description of input and outputs is checked.
    Raises BundleError when the network cannot be converted or a check fails.
    """
    crop, classes = model.preprocess.crop, list(model.classes)
    module = Probabilities(description, channels_first=True)
    example = torch.zeros(1, 3, crop, crop)
    try:
        with warnings.catch_warnings(), console.without_output():
            warnings.simplefilter("ignore")  # torch's own, about itself
            tools: Any = importlib.import_module("coremltools")
            program = torch.export.export(module, (example,)).run_decompositions({})
            converted = tools.convert(
                program,
                inputs=[tools.ImageType(name=INPUT, shape=example.shape)],
                convert_to="mlprogram",
                classifier_config=tools.ClassifierConfig(classes),
                minimum_deployment_target=tools.target.iOS16,
                compute_precision=tools.precision.FLOAT32,
            )
            converted.short_description = f"{model.backbone} trained by thawnet"
            with TemporaryDirectory(prefix="thawnet-") as scratch:
                package = Path(scratch) / "model.mlpackage"
                converted.save(str(package))
                _check(tools.utils.load_spec(str(package)).description, crop)
                said = _compared(tools, package, model)
                with new_folder(out) as folder:
                    shutil.copytree(package, folder, dirs_exist_ok=True)
    except ThawnetError:
        raise
    except Exception as error:  # any of timm's 1,300 models may raise anything
        raise BundleError(
            f"the network cannot be converted to Core ML ({first_line(error)})"
        ) from error
    return said


def _check(description: Any, crop: int) -> None:
    """Raise BundleError unless a package's description is that of a classifier of such images."""
    (image,) = description.input
    size = image.type.imageType
    told = {description.predictedFeatureName, description.predictedProbabilitiesName}
    outputs_named = {output.name for output in description.output}
    if (image.name, size.width, size.height) != (INPUT, crop, crop) or told != outputs_named:
        raise BundleError(
            f"Core ML's package takes '{image.name}', {size.width} x {size.height} pixels, and "
            f"gives {sorted(outputs_named)}, where a classifier of {crop} x {crop} is expected"
        )


def _compared(tools: Any, package: Path, model: Model) -> str:
    """Return what a comparison of the package with `model` found, which only a Mac can make."""
    if sys.platform != "darwin":
        return "its description was checked; only a Mac can run it"
    loaded = tools.models.MLModel(str(package))
    squares = probe_squares(model.preprocess)
    rows = []
    for square in squares:
        answer = loaded.predict({INPUT: Image.fromarray(square)})
        shares = answer[loaded.get_spec().description.predictedProbabilitiesName]
        rows.append([shares[name] for name in model.classes])
    off = moved(np.array(rows, np.float32), model, squares, "Core ML")
    return f"probabilities as model.onnx gives them (largest difference {off:.1e})"
