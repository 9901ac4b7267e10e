"""The model card: README.md in a bundle, with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..core.text import counted, printable
from ..image.preprocess import Preprocess
from ..metrics.result import Result
from .meaning import Meaning

LICENCES = ("apache-2.0", "mit", "bsd-3-clause")  # the hub's names; others are free text
SHOWN = 20  # classes listed by name

_CARD = """---
{front}
---

# {title}

{backbone} at {size} x {size} pixels, trained on {data} by thawnet: first a new head on the frozen
network{finetuned}.

{scores}

Classes ({count:,}): {classes}.

## Use

With thawnet installed:

    thawnet predict IMAGES --model THIS_FOLDER

```python
import thawnet

model = thawnet.load("THIS_FOLDER")
for prediction in model.predict(["photo.jpg"]):
    print(prediction.classes[0], prediction.probabilities[0])
```

`model.onnx` takes uint8 RGB squares, (n, {crop}, {crop}, 3){enlarged}, and gives
logits, (n, {count}); divided by the temperature {temperature:g} and put through a softmax they
are probabilities. First, images are turned upright, their colours converted to sRGB, and {fitted}
(bicubic, antialiased). `model.safetensors` holds the weights in timm's names, `model.json` all of
this for programs, `trained_on.bin` the beginning of the SHA-256 of every image that trained or
validated it.

## Training

| | |
|---|---|
| recipe | {recipe}, seed {seed}; complete in model.json |
| command | {command} |
| data | {data}, fingerprint {fingerprint} |
| starting weights | {origin} |
| licence | {licence} |
| finished | {finished} |
| machine | {machine} |
| versions | {versions} |

## Limits

It names one of its classes for any image, whatever it shows{unfamiliar}.
{calibration}. The accuracy above is {of}; measure it on
your own images before you rely on it.
"""


_INT8_CARD = """---
{front}
---

# {title}

{backbone} at {size} x {size} pixels, trained on {data} by thawnet and then quantised to 8-bit
integers, with activation ranges from {calibrated:,} training images. `model.json` names the float32
network that it was made from by its hashes.

| on {images:,} validation images | float32 | int8 |
|---|---|---|
| accuracy | {accuracy} |
| images/s where it was made | {speed} |

Both name the same class for {same:.2f} % of them. That holds on processors that multiply 8-bit
integers exactly, such as ARM's and x86's with VNNI; on older x86 ones sums may overflow in
ONNX Runtime, and the float32 network is the one to use.

With thawnet installed:

    thawnet predict IMAGES --model THIS_FOLDER

Licence: {licence}.
"""


def model_card(
    meaning: Meaning, backbone: str, licence: str, recipe: Mapping[str, Any], result: Result
) -> str:
    """Return the text of README.md. recipe: as in recipe.toml."""
    data, part, scores = result.data.name, result.headline, result.scores
    title = f"{backbone} for {data}"
    metrics = [{"type": "accuracy", "name": f"{part} accuracy", "value": scores.accuracy}]
    if len(meaning.classes) > 5:
        name = f"{part} top-5 accuracy"
        metrics.append({"type": "accuracy", "name": name, "value": scores.top_5})
    results = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": data, "split": part},
        "metrics": metrics,
    }
    front = {
        **_front_matter(licence, data, backbone),
        "metrics": ["accuracy"],
        "model-index": [{"name": title, "results": [results]}],
    }
    return _CARD.format(
        front=_yaml(front),
        title=_text(title),
        backbone=_text(backbone),
        size=meaning.preprocess.size,
        crop=meaning.preprocess.crop,
        enlarged=_enlarged(meaning.preprocess),
        fitted=_fitted(meaning.preprocess),
        data=_text(data),
        finetuned=(
            f", then its layers from {_code(result.phases[1].trains_from)} on at a low rate"
            if result.kept == "fine-tune"
            else "; fine-tuning more of it was not better and is not kept"
            if len(result.phases) > 1
            else ", and nothing more of it"
        ),
        scores=_scores(result, len(meaning.classes)),
        of=(
            f"of {counted(scores.images, 'image')} that it learned from, each tested by a network "
            "that did not"
            if result.crossed
            else f"of {counted(scores.images, 'image')} of one {part} part"
        ),
        calibration=(
            f"Probabilities are calibrated on {counted(result.fitted_on, 'image')} like those it "
            "was trained on and mean nothing on others"
            if result.fitted_on
            else "Probabilities are not calibrated"
        ),
        count=len(meaning.classes),
        classes=_listed(meaning.classes),
        temperature=meaning.temperature,
        recipe=_code(str(recipe["name"])),
        seed=recipe["seed"],
        command=_code(result.command),
        fingerprint=result.data.fingerprint,
        origin=_text(result.weights.origin),
        licence=_text(licence),
        finished=result.finished,
        machine=_text(str(result.machine["chip"])),
        versions=", ".join(f"{name} {value}" for name, value in result.versions.items()),
        unfamiliar=(
            "; `unfamiliar` is null, as this network cannot tell"
            if meaning.unfamiliar is None
            else "; `unfamiliar` says where that is unlike the training data (as it said of "
            f"{100 * meaning.unfamiliar.false_alarms:g} % of the validation images)"
        ),
    )


def int8_card(
    meaning: Meaning, backbone: str, data: str, licence: str, figures: Mapping[str, Any]
) -> str:
    """Return the text of README.md for a quantised network.

    figures: as under `export` in model.json; see export/int8.py.
    """
    accuracy, speed = figures["validation_accuracy"], figures["images_per_second"]
    return _INT8_CARD.format(
        front=_yaml(_front_matter(licence, data, backbone)),
        title=_text(f"{backbone} for {data} in int8"),
        backbone=_text(backbone),
        size=meaning.preprocess.size,
        data=_text(data),
        calibrated=figures["calibration_images"],
        images=figures["images"],
        accuracy=" | ".join(f"{100 * share:.2f} %" for share in accuracy.values()),
        speed=" | ".join(f"{images:,.0f}" for images in speed.values()),
        same=100 * figures["same_top_1"],
        licence=_text(licence),
    )


def _front_matter(licence: str, data: str, backbone: str) -> dict[str, Any]:
    """Return the front matter that the cards of all networks share.

    See https://huggingface.co/docs/hub/model-cards, "Model card metadata".
    """
    known = licence.lower() in LICENCES
    return {
        **(
            {"license": licence.lower()} if known else {"license": "other", "license_name": licence}
        ),
        "library_name": "thawnet",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "thawnet", "timm", "onnx", backbone],
        "datasets": [data],
    }


def _yaml(fields: Mapping[str, Any]) -> str:
    """Return YAML with its values written as JSON, which is valid YAML."""
    return "\n".join(f"{name}: {json.dumps(value)}" for name, value in fields.items())


def _enlarged(spec: Preprocess) -> str:
    """Return what the ONNX model itself does to squares that are smaller than its network's."""
    return f" (it enlarges them to {spec.size} px itself)" if spec.crop < spec.size else ""


def _fitted(spec: Preprocess) -> str:
    """Return how an image becomes the square that the network takes."""
    side = spec.side
    if spec.fit == "squash":
        return f"squashed to {side} x {side} px"
    if spec.fit == "pad":
        red, green, blue = spec.reduction.fill
        return f"reduced to a long side of {side} px and padded with ({red}, {green}, {blue})"
    return f"reduced to a short side of {side} px and cut in the middle"


def _scores(result: Result, classes: int) -> str:
    scores, part = result.scores, result.quoted
    low, high = scores.interval_95
    images = counted(scores.images, "image")
    error = scores.expected_calibration_error.calibrated
    rows = [
        (f"{part} accuracy", f"{100 * scores.accuracy:.2f} %"),
        ("95 % interval", f"{100 * low:.2f}-{100 * high:.2f} %, {images}"),
        *([("top-5 accuracy", f"{100 * scores.top_5:.2f} %")] if classes > 5 else []),
        ("balanced accuracy", f"{100 * scores.balanced_accuracy:.2f} %"),
        ("expected calibration error", f"{100 * error:.2f} %"),
    ]
    for name, score in asdict(result.baselines).items() if result.baselines else ():
        rows.append((f"to beat: {name.replace('_', ' ')}", f"{100 * score['accuracy']:.2f} %"))
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    standing = result.standing
    return f"{table}\n\n{standing[0].upper()}{standing[1:]}." if standing else table


def _listed(classes: Sequence[str]) -> str:
    names = ", ".join(_text(name) for name in classes[:SHOWN])
    return f"{names} and {len(classes) - SHOWN:,} more" if len(classes) > SHOWN else names


def _code(text: str) -> str:
    """Return text as Markdown code that stays on one line and in one table cell."""
    inside = printable(text).replace("|", "\\|")
    if "`" not in inside:
        return f"`{inside}`"
    fence = "`" * (1 + max(map(len, re.findall("`+", inside))))
    return f"{fence} {inside} {fence}"


def _text(text: str) -> str:
    """Return text escaped for Markdown, so that it stays on one line and in one table cell."""
    # An underscore inside a word has no meaning in Markdown.
    special = r"[\\`*\[\]<>|#&]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])"
    return re.sub(special, r"\\\g<0>", printable(text))
