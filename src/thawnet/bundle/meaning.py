"""The inputs and outputs of a network, and the checks of their values in model.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from ..core.files import fingerprint
from ..core.text import fault_of_name, shown
from ..image.decode import LEVEL_BITS
from ..image.preprocess import MAX_SIDE, Enlargement, Fit, Preprocess

TEMPERATURES = (0.01, 100.0)  # beyond these, probabilities are meaningless


@dataclass(frozen=True)
class Unfamiliar:
    """The threshold above which an image counts as unlike the training data."""

    above: float
    """Threshold on the unfamiliarity."""
    false_alarms: float
    """Share of the validation images above the threshold, 0 to 1."""


@dataclass(frozen=True)
class Meaning:
    """The meaning of a network's inputs and outputs."""

    classes: tuple[str, ...]
    """Names in the order of the logits."""
    preprocess: Preprocess
    temperature: float = 1.0
    """Divisor of the logits before the softmax."""
    unfamiliar: Unfamiliar | None = None
    """None if no images were held out to set it."""

    @property
    def marks(self) -> dict[str, str]:
        """Metadata of model.onnx that ties it to a single model.json."""
        return {
            "thawnet.classes": fingerprint(list(self.classes)),
            "thawnet.preprocess": fingerprint(self.preprocess.as_dict()),
            "thawnet.temperature": repr(self.temperature),
            "thawnet.unfamiliar": repr(self.unfamiliar and self.unfamiliar.above),
        }


def parse_meaning(content: dict[str, Any]) -> Meaning:
    """Remove the fields of a Meaning from model.json's content and return the Meaning.

    Raises KeyError for a missing field, and TypeError, ValueError, AttributeError or OverflowError
    for an invalid value.
    """
    return Meaning(
        classes=_classes(content.pop("classes")),
        preprocess=_preprocess(content.pop("preprocess")),
        temperature=_temperature(content.pop("temperature")),
        unfamiliar=_unfamiliar(content.pop("unfamiliar")),
    )


def require_text(value: Any) -> str:
    """Return `value` if it is text; raise TypeError otherwise."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, received {shown(value)}")
    return value


def _classes(value: Any) -> tuple[str, ...]:
    names = tuple(require_text(name) for name in value) if isinstance(value, list) else ()
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"expected two or more different class names, received {len(names)}")
    if fault := next(filter(None, map(fault_of_name, names)), None):
        raise ValueError(fault)
    return names


def _preprocess(value: Any) -> Preprocess:
    for side in (value["size"], value["side"]):
        if type(side) is not int or not 1 <= side <= MAX_SIDE:
            raise ValueError(
                f"size and side must be 1 to {MAX_SIDE} pixels, received {shown(side)}"
            )
    fit = value.get("fit", "crop")
    if fit not in get_args(Fit):
        raise ValueError(f"fit must be one of {', '.join(get_args(Fit))}, received {shown(fit)}")
    mean, std = _three(value["mean"]), _three(value["std"])
    bits = value.get("bits", 0)
    if bits not in (0, *LEVEL_BITS) or type(bits) is not int:
        raise ValueError(f"bits must be 0 or one of {LEVEL_BITS}, received {shown(bits)}")
    enlarge = value["enlarge"]
    if enlarge not in get_args(Enlargement):
        known = " or ".join(get_args(Enlargement))
        raise ValueError(f"enlarge must be {known}, received {shown(enlarge)}")
    mirrored = value.get("mirrored", False)
    if type(mirrored) is not bool:
        raise ValueError(f"mirrored must be true or false, received {shown(mirrored)}")
    spec = Preprocess(value["size"], value["side"], mean, std, fit, bits, enlarge, mirrored)
    if min(spec.std) <= 0:
        raise ValueError(f"std must be above 0, received {shown(value['std'])}")
    if spec.as_dict() != {**value, "mean": spec.mean, "std": spec.std}:
        raise ValueError("preprocess asks for steps that this thawnet does not know")
    return spec


def _temperature(value: Any) -> float:
    least, most = TEMPERATURES
    if type(value) is not float or not least <= value <= most:
        raise ValueError(f"temperature must be {least:g} to {most:g}, received {shown(value)}")
    return value


def _unfamiliar(value: Any) -> Unfamiliar | None:
    if value is None:
        return None
    above, false_alarms = value["above"], value["false_alarms"]
    if type(above) is not float or not math.isfinite(above):
        raise ValueError(f"unfamiliar.above must be a finite number, received {shown(above)}")
    if type(false_alarms) is not float or not 0 < false_alarms < 1:
        raise ValueError(
            f"unfamiliar.false_alarms must be above 0 and below 1: {shown(false_alarms)}"
        )
    return Unfamiliar(above, false_alarms)


def _three(value: Any) -> tuple[float, float, float]:
    first, second, third = (float(number) for number in value)
    if not all(map(math.isfinite, (first, second, third))):
        raise ValueError(f"expected three finite numbers, received {shown(value)}")
    return first, second, third
