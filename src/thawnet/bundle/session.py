"""Opening model.onnx, and checking it against model.json."""

from __future__ import annotations

import onnxruntime

from ..core.errors import BundleError, first_line
from .format import ONNX, Description
from .onnx import FEATURE_MAP, FEATURES, IMAGES, LOGITS, UNFAMILIARITY


def open_session(description: Description, content: bytes) -> onnxruntime.InferenceSession:
    """Open the network in model.onnx; it computes in the calling thread.

    content: of model.onnx. Raises BundleError unless its inputs, outputs and metadata are those
    that model.json describes.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # see model.BATCH
    options.log_severity_level = 4  # faults of the file also raise an exception
    # External weights would be looked up in the working folder; nothing can lie below a file.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(description.path / ONNX)
    )
    try:
        session = onnxruntime.InferenceSession(
            content,
            options,
            ["CPUExecutionProvider"],
            enable_fallback=0,  # it would only try the same again, and say so on stdout
        )
        ends = {
            end.name: (end.type, list(end.shape[1:]))
            for end in (*session.get_inputs(), *session.get_outputs())
        }
        marks = session.get_modelmeta().custom_metadata_map
    # ONNX Runtime's exceptions have no narrower base class; names not in UTF-8 raise Python's.
    except Exception as error:
        raise BundleError(
            f"'{description.path}': ONNX Runtime cannot open the network ({first_line(error)}); "
            "update onnxruntime, or train again"
        ) from error
    _check_ends(description, ends)
    for name, mark in description.meaning.marks.items():
        if marks.get(name) != mark:
            raise BundleError(
                f"'{description.path}': the {name.removeprefix('thawnet.')} in model.json is not "
                "what the network was trained with; copy the bundle again"
            )
    return session


def _check_ends(description: Description, ends: dict[str, tuple[str, list[int | str]]]) -> None:
    """Raise BundleError unless a network has the inputs and outputs that model.json describes.

    ends: the type of each input and output, and its shape without the first dimension, by name.
    """
    meaning = description.meaning
    crop = meaning.preprocess.crop
    described = {
        IMAGES: ("tensor(uint8)", [crop, crop, 3]),
        LOGITS: ("tensor(float)", [len(meaning.classes)]),
    }
    others = {name: end for name, end in ends.items() if name not in described}
    sides = {FEATURES: 1, FEATURE_MAP: 3, UNFAMILIARITY: 0}  # how many; model.json has no lengths
    required = {FEATURES}
    if meaning.unfamiliar is not None:
        required.add(UNFAMILIARITY)
    if description.architecture.class_weights is not None:
        required.add(FEATURE_MAP)
    if (
        {name: ends.get(name) for name in described} != described
        or not required <= others.keys() <= sides.keys()
        or any(
            kind != "tensor(float)" or len(shape) != sides[name]
            for name, (kind, shape) in others.items()
        )
    ):
        raise BundleError(
            f"'{description.path}': the network takes and gives {ends}, and model.json describes "
            f"{described}; copy the bundle again"
        )
