"""Forms for phones: what the phones' own libraries make of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.commands import called
from thawnet import embedded, load
from thawnet.bundle.format import read_description
from thawnet.bundle.model import softmax
from thawnet.export import int8, litert
from thawnet.export.page.network import MOST_OFF
from thawnet.image.decode import decode
from thawnet.image.preprocess import squared
from thawnet.training.run_folder import Outcome
from thawnet.webpage.facts import EXAMPLES

# The converters' libraries warn of themselves, and take seconds to import.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
NEEDS = "make test-all installs tests/phones.txt"


@pytest.fixture
def converter() -> None:
    """Skip where the converter for LiteRT is not installed."""
    for name in ("litert_torch", "mediapipe"):
        pytest.importorskip(name, reason=f"{name} is not installed: {NEEDS}")


def test_mediapipe_names_the_classes_of_photos(
    converter: None, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = called(capfd, "export", embedded.BUNDLE, "--to", "litert")
    assert status == 0, err
    line = (
        r"mobilenetv2_100.tflite: \d\.\d MB, probabilities as model.onnx gives them "
        r"\(largest difference (\S+)\); classes inside\n"
    )
    match = re.fullmatch(line, out)
    assert match is not None, out
    assert float(match[1]) <= MOST_OFF
    assert err.splitlines() == ["model embedded: mobilenetv2_100, 100 classes, 96 px"]
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path="mobilenetv2_100.tflite"), max_results=3
    )
    model = load()
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for path in sorted(EXAMPLES.iterdir()):
            photo = decode(path.read_bytes())
            square = np.ascontiguousarray(squared(photo, model.preprocess))
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=square)
            (found,) = classifier.classify(image).classifications
            shares = softmax(model.outputs(square[None]).logits / model.temperature)[0]
            best = found.categories[0]
            assert best.category_name == model.classes[int(shares.argmax())]
            assert best.score == pytest.approx(shares.max(), abs=0.02)


def test_int8_is_smaller_and_measured_on_the_validation_images(
    converter: None,
    finished: Outcome,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # This network has learned next to nothing: its nearest classes are as good as equal.
    monkeypatch.setattr(int8, "evidence_of_loss", lambda *_: "")
    sizes = {}
    for form in ("litert", "litert-int8"):
        words = ("export", finished.folder, "--to", form, "--out", f"{form}.tflite")
        status, out, err = called(capfd, *words)
        assert status == 0, err
        sizes[form] = Path(f"{form}.tflite").stat().st_size
    assert re.fullmatch(
        r"litert-int8.tflite: \d\.\d MB; on \d+ validation images accuracy \S+ % "
        r"\(float32 \S+ %\); classes inside\n",
        out,
    )
    assert sizes["litert-int8"] < 0.6 * sizes["litert"]
    monkeypatch.setattr(int8, "evidence_of_loss", lambda *_: "p = 0.01")
    words = ("export", finished.folder, "--to", "litert-int8", "--out", "worse.tflite")
    status, _, err = called(capfd, *words)
    assert status == 1
    assert "which is more than chance (p = 0.01), and nothing is written" in err
    assert not Path("worse.tflite").exists()
    status, _, err = called(capfd, *words, "--anyway")
    assert status == 0, err


class Squares:
    """Images of the network's own size, as a store holds them."""

    def __init__(self, squares: np.ndarray, labels: np.ndarray) -> None:
        self.squares, self.labels = squares, labels

    def __len__(self) -> int:
        return len(self.squares)

    def batch(self, positions: np.ndarray) -> np.ndarray:
        return self.squares[positions]


def test_network_that_enlarges_its_images_keeps_its_answers_in_int8(converter: None) -> None:
    model = load()
    photos = [squared(decode(path.read_bytes()), model.preprocess) for path in EXAMPLES.iterdir()]
    moved = [np.roll(photo, (x, y), (0, 1)) for photo in photos for x in range(4) for y in (0, 3)]
    squares = np.stack(moved)
    labels = model.all_logits(squares).argmax(1)
    images: Any = Squares(squares, labels)
    found = litert.to_litert_int8(
        read_description(embedded.BUNDLE), model, images, images, anyway=True
    )
    assert 2.5e6 < len(found.content) < 3.5e6  # a byte for each weight
    answers = litert._answers(found.content, squares)
    assert (answers.argmax(1) == labels).mean() > 0.75  # of oddly cut photos; 0.01 by chance


def test_form_that_answers_otherwise_is_not_written(
    converter: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(_content: bytes, squares: np.ndarray, *_: Any) -> np.ndarray:
        return np.full((len(squares), 100), 0.9, np.float32)

    monkeypatch.setattr(litert, "_answers", other)
    status, _, err = called(capfd, "export", embedded.BUNDLE, "--to", "litert")
    assert status == 1
    assert "computes something else once exported to LiteRT" in err
    assert not list(Path().iterdir())


def test_core_ml_package_describes_a_classifier_of_images(
    capfd: pytest.CaptureFixture[str],
) -> None:
    tools = pytest.importorskip("coremltools", reason=f"coremltools is not installed: {NEEDS}")
    words = ("export", embedded.BUNDLE, "--to", "coreml", "--out", "net.mlpackage")
    status, out, err = called(capfd, *words)
    assert status == 0, err
    assert re.fullmatch(r"net.mlpackage: \d\.\d MB, .*Mac.*\n|.*largest difference.*\n", out)
    spec = tools.utils.load_spec("net.mlpackage")
    (image,) = spec.description.input
    crop = load().preprocess.crop
    kind = image.type.imageType
    assert (image.name, kind.width, kind.height) == ("image", crop, crop)
    assert kind.colorSpace == kind.ColorSpace.Value("RGB")
    assert spec.description.predictedFeatureName == "classLabel"
    assert all(name in str(spec.mlProgram) for name in load().classes[:5])
    status, _, err = called(capfd, *words)
    assert (status, err) == (
        2,
        "thawnet: 'net.mlpackage' already exists; remove it, or choose another with --out\n",
    )
