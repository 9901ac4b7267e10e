"""The network in model.onnx opened, and held against what model.json says of it."""

from __future__ import annotations

from typing import Any

import onnxruntime

from ..core.errors import BundleError, first_line
from .format import ONNX, Description
from .onnx import FEATURE_MAP, FEATURES, IMAGES, LOGITS, UNFAMILIARITY


def open_session(description: Description, content: bytes) -> onnxruntime.InferenceSession:
    """Return the network in model.onnx, which computes in the thread that calls it.

    content: model.onnx. Raises BundleError unless it is a network of the kind and the bundle that
    model.json describes.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # see predict.BATCH
    options.log_severity_level = 4  # what is wrong with the file comes as an exception too
    # Weights outside the file would be looked for in the working folder; below a file is nothing.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(description.path / ONNX)
    )
    try:
        session = onnxruntime.InferenceSession(
            content,
            options,
            ["CPUExecutionProvider"],
            enable_fallback=0,  # it would try the same again, and print so on stdout
        )
        ends = [*session.get_inputs(), *session.get_outputs()]
        found = {end.name: (end.type, list(end.shape[1:])) for end in ends}
        carried = session.get_modelmeta().custom_metadata_map
    # ONNX Runtime's own exceptions share no other class; names that are no UTF-8 have Python's.
    except Exception as error:
        raise BundleError(
            f"'{description.path}': ONNX Runtime cannot open the network ({first_line(error)}); "
            "update onnxruntime, or train again"
        ) from error
    _check(description, found, carried)
    return session


def _check(
    description: Description, found: dict[str, tuple[str, list[Any]]], carried: dict[str, str]
) -> None:
    """Raise BundleError unless network and description are of one kind and of one bundle.

    found: of each input and output by name, its type and its sides but the first. carried: the
    network's metadata.
    """
    meaning = description.meaning
    crop, classes = meaning.preprocess.crop, len(meaning.classes)
    wanted = {
        IMAGES: ("tensor(uint8)", [crop, crop, 3]),
        LOGITS: ("tensor(float)", [classes]),
    }
    # Of the others model.json tells no sides: how many there are of one image, by kind.
    others = {
        name: (kind, len(shape)) for name, (kind, shape) in found.items() if name not in wanted
    }
    known = {FEATURES: 1, FEATURE_MAP: 3, UNFAMILIARITY: 0}
    needed = {FEATURES}
    needed |= set() if meaning.unfamiliar is None else {UNFAMILIARITY}
    needed |= set() if description.architecture.class_weights is None else {FEATURE_MAP}
    if (
        {name: found.get(name) for name in wanted} != wanted
        or not needed <= others.keys() <= known.keys()
        or any(others[name] != ("tensor(float)", known[name]) for name in others)
    ):
        raise BundleError(
            f"'{description.path}': the network takes and gives {found}, and model.json describes "
            f"{wanted}; copy the bundle again"
        )
    for name, mark in meaning.marks.items():
        if carried.get(name) != mark:
            raise BundleError(
                f"'{description.path}': the {name.removeprefix('thawnet.')} in model.json is not "
                "what the network was trained with; copy the bundle again"
            )
