"""Prediction: the pixels, classes and probabilities of training's own evaluation, without torch."""

from __future__ import annotations

import csv
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import thawnet
from support.commands import run_without
from support.photos import draw
from support.runs import tiny_options
from thawnet.bundle.model import AHEAD, BATCH
from thawnet.core.errors import ImageError, UsageError
from thawnet.data.sources.open import open_source
from thawnet.data.store import open_store
from thawnet.image.decode import decode
from thawnet.image.preprocess import Preprocess, Reduction, squared
from thawnet.training import run

SIZES = [(40, 40), (55, 41), (41, 56), (43, 40), (40, 45), (200, 131), (90, 400)]


def odd_photos(folder: Path, count: int) -> Path:
    """Write photos of all kinds of sides, some as JPEG so large that they are decoded reduced."""
    for label, name in enumerate("abc"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            size = SIZES[(number + label) % len(SIZES)]
            kind = "jpg" if number % 2 else "png"
            draw(label, number, size).save(folder / name / f"{number:03d}.{kind}")
    return folder


@pytest.mark.parametrize(("size", "side"), [(32, 37), (35, 40), (32, 40), (48, 40), (33, 40)])
def test_an_image_gets_the_pixels_that_evaluation_sees(
    tmp_path: Path, size: int, side: int
) -> None:
    source = open_source(str(odd_photos(tmp_path / "odd", 7)))
    items = source.open_part("train")
    store = open_store(items, Reduction(side), lambda done: None, 1)
    spec = Preprocess(size, side, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    inset = (side - spec.crop) // 2  # as data/views.py cuts it
    for position, name in enumerate(store.names):
        stored = store.batch(np.array([position]))[0]
        seen = stored[inset : inset + spec.crop, inset : inset + spec.crop]
        image = decode((tmp_path / "odd" / name).read_bytes(), side)
        assert (squared(image, spec) == seen).all(), name


@pytest.mark.parametrize("size", [32, 64])
def test_model_gives_the_classes_and_probabilities_that_training_measured(
    tmp_path: Path, tiny_weights: Path, size: int
) -> None:
    folder = odd_photos(tmp_path / "odd", 24)
    options = tiny_options(folder, tiny_weights)
    outcome = run.train(replace(options, size=size, precision=None, no_test=True))
    with (outcome.folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    model = thawnet.load(outcome.folder)
    assert (model.preprocess.crop < size) == (size == 64)  # enlarged or cut
    predictions = model.predict([folder / row["image"] for row in rows], top_k=3)
    assert len(rows) >= 6
    for row, prediction in zip(rows, predictions, strict=True):
        shares = dict(zip(prediction.classes, prediction.probabilities, strict=True))
        assert prediction.classes[0] == row["predicted"]
        assert shares[row["predicted"]] == pytest.approx(float(row["probability"]), abs=1e-3)
        assert shares[row["class"]] == pytest.approx(float(row["probability_of_class"]), abs=1e-3)


def test_paths_images_and_arrays_are_one_picture(bundle: Path, tmp_path: Path) -> None:
    image = draw(1, 1, (50, 44))
    image.save(tmp_path / "one.png")
    model = thawnet.load(bundle)
    forms = [str(tmp_path / "one.png"), tmp_path / "one.png", image, np.asarray(image)]
    first, *others = model.predict(forms)
    assert others == [first] * 3
    assert sorted(first.classes) == ["a", "b", "c"]
    assert list(first.probabilities) == sorted(first.probabilities, reverse=True)
    assert sum(first.probabilities) == pytest.approx(1)
    (best,) = model.predict([image], top_k=1)
    assert (best.classes, best.probabilities) == (first.classes[:1], first.probabilities[:1])


def test_photo_is_turned_as_exif_says(bundle: Path, tmp_path: Path) -> None:
    image = draw(2, 1, (60, 44))
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    turned.save(tmp_path / "turned.png", exif=exif)
    model = thawnet.load(bundle)
    with Image.open(tmp_path / "turned.png") as opened:
        assert model.predict([tmp_path / "turned.png", opened]) == model.predict([image, image])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Path("nowhere.jpg"), r"image 2 \(nowhere.jpg\): no such file"),
        (Path(), r"image 2 \(\.\): not a file"),
        ("a\0b", "image 2 "),
        (np.zeros((5, 5, 3), np.float32), r"image 2: received \(5, 5, 3\) float32; expected"),
        (np.zeros((5, 5, 4), np.uint8), r"received \(5, 5, 4\) uint8"),
        (np.zeros((0, 5), np.uint8), r"received \(0, 5\) uint8"),
        (7, "received  int"),
        (Image.new("L", (9000, 9000)), "9000 x 9000 pixels would take 243 MB"),
    ],
)
def test_what_is_no_image_is_named_by_its_number(bundle: Path, image: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        thawnet.load(bundle).predict([draw(0, 0), image])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "image", ["photos", Path("photos"), b"\xff\xd8", draw(0, 0), np.asarray(draw(0, 0)), bytes]
)
def test_a_single_image_is_asked_for_in_a_list(bundle: Path, image: Any) -> None:
    model = thawnet.load(bundle)
    for use in (model.predict, model.features, model.stream):
        with pytest.raises(UsageError, match="where several images are expected: put it in a list"):
            use(image)


def test_broken_image_costs_only_its_own_prediction(bundle: Path) -> None:
    good = draw(0, 0)
    results = list(thawnet.load(bundle).stream(["nowhere.jpg", good, "nowhere.jpg", good]))
    assert [isinstance(result, ImageError) for result in results] == [True, False, True, False]
    assert results[1] == results[3]


def test_prediction_does_not_depend_on_neighbours_or_threads(bundle: Path) -> None:
    images = [draw(number % 3, number) for number in range(50)]
    many = thawnet.load(bundle, threads=3).predict(images)
    assert len({each.classes[0] for each in many}) > 1
    one = thawnet.load(bundle, threads=1)
    for image, among in zip(images, many, strict=True):
        (alone,) = one.predict([image])
        assert alone.classes == among.classes
        assert alone.probabilities == pytest.approx(among.probabilities, abs=1e-6)


def test_outputs_of_each_image_are_those_that_predictions_are_made_of(colours: Path) -> None:
    model = thawnet.load(colours, threads=2)
    assert model.unfamiliar is not None
    images = [draw(number % 5, number) for number in range(40)]
    pictures = [*images, "nowhere.jpg", Image.new("RGB", (40, 40), "white")]
    outputs, predictions = list(model.stream_outputs(pictures)), list(model.stream(pictures, 1))
    for results in (outputs, predictions):
        errors = [isinstance(result, ImageError) for result in results]
        assert errors == [False] * 40 + [True, False]
        del results[40]
    for one, prediction in zip(outputs, predictions, strict=True):
        assert one.logits.shape == (1, 6)
        assert model.classes[one.logits.argmax()] == prediction.classes[0]
        assert (one.unfamiliarity > model.unfamiliar.above).tolist() == [prediction.unfamiliar]
    assert [prediction.unfamiliar for prediction in predictions[-2:]] == [False, True]


def test_network_that_cannot_tell_gives_no_unfamiliarity(bundle: Path) -> None:
    (outputs,) = thawnet.load(bundle).stream_outputs([draw(0, 0)])
    assert outputs.logits.shape == (1, 3)
    assert outputs.unfamiliarity is None


def test_images_are_taken_as_they_are_needed(bundle: Path) -> None:
    taken = 0

    def many() -> Iterator[Image.Image]:
        nonlocal taken
        while taken < 2000:
            taken += 1
            yield image

    image = draw(0, 0)
    results = thawnet.load(bundle, threads=2).stream(many())
    for done in range(1, 200):
        next(results)
        assert taken - done < AHEAD * 2 * BATCH
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("threads", "top_k"), [(0, 5), (1, 0)])
def test_numbers_below_1_are_a_wrong_call(bundle: Path, threads: int, top_k: int) -> None:
    with pytest.raises(UsageError, match="must be at least 1"):
        thawnet.load(bundle, threads).predict([draw(0, 0)], top_k)


def test_pickled_model_predicts_without_its_bundle(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    model = thawnet.load(tmp_path / "copy", threads=1)
    shutil.rmtree(tmp_path / "copy")
    again = pickle.loads(pickle.dumps(model))
    images = [draw(number % 3, number) for number in range(9)]
    assert again.predict(images) == model.predict(images)
    assert (again.path, again.classes) == (model.path, model.classes)


def test_no_image_no_prediction(bundle: Path) -> None:
    assert thawnet.load(bundle).predict([]) == []


def test_prediction_needs_only_the_base_install(bundle: Path, photos: Callable[..., Path]) -> None:
    image = next(photos({"a": 1, "b": 1}).rglob("*.png"))
    code = """
import thawnet, thawnet.cli
thawnet.load(sys.argv[1]).predict([sys.argv[2]])
sys.exit(thawnet.cli.main(["predict", sys.argv[2], "--model", sys.argv[1]]))
"""
    lacking = ("torch", "onnx", "safetensors", "scipy", "sklearn", "pyarrow")
    done = run_without(lacking, code, bundle, image)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{image}  ")


def test_probabilities_are_the_softmax_of_logits_divided_by_the_temperature(bundle: Path) -> None:
    model = thawnet.load(bundle)
    assert model.temperature == 2.0
    crop = model.preprocess.crop
    square = np.asarray(draw(0, 1, (crop, crop)))
    powers = np.exp(model.outputs(square[None]).logits[0].astype(float) / 2.0)
    (prediction,) = model.predict([square])
    shares = dict(zip(model.classes, powers / powers.sum(), strict=True))
    named = dict(zip(prediction.classes, prediction.probabilities, strict=True))
    assert named == pytest.approx(shares)
