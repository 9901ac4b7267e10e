"""The embedded network: small, as accurate as it says, the same in both of its forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thawnet
from support.shared import CIFAR
from thawnet import embedded
from thawnet.bundle.format import read_description
from thawnet.bundle.onnx import from_pixels
from thawnet.data.sources.open import open_source
from thawnet.export.pt2 import rebuild
from thawnet.image.decode import decode
from thawnet.image.preprocess import squared
from thawnet.recipe import parse_recipe, to_toml
from thawnet.training.gate import agreement, outputs

IMAGES = 1000


def test_it_takes_at_most_ten_megabytes() -> None:
    sizes = {file.name: file.stat().st_size for file in embedded.BUNDLE.iterdir()}
    assert sum(sizes.values()) <= 10_000_000
    names = ["README.md", "model.json", "model.onnx", "model.safetensors", "trained_on.bin"]
    assert sorted(sizes) == names


def test_it_is_what_is_opened_where_no_model_is_named() -> None:
    model = thawnet.load()
    assert model.path == embedded.BUNDLE
    assert model.backbone == embedded.BACKBONE
    assert len(model.classes) == 100
    assert model.unfamiliar is not None


@pytest.mark.slow  # three networks on a thousand images
@pytest.mark.skipif(not CIFAR.is_dir(), reason=f"needs {CIFAR}")
def test_torch_onnx_and_predict_agree_on_real_images_and_with_what_it_says() -> None:
    model, description = thawnet.load(), read_description(embedded.BUNDLE)
    source = open_source("cifar100", CIFAR)
    test = source.open_part("test")
    rows = range(0, len(test), len(test) // IMAGES)
    images = [test.read(row) for row in rows]
    squares = np.stack([squared(decode(image), model.preprocess) for image in images])  # type: ignore[arg-type]
    onnx = model.all_logits(squares)
    whole = from_pixels(outputs(rebuild(description)), model.preprocess)
    with torch.inference_mode():
        logits = [whole(some)[0].numpy() for some in torch.from_numpy(squares).split(50)]
    agreed = agreement(np.concatenate(logits), onnx, model.temperature)
    # One is rounded to float16 before batch-norms are folded into it, the other after.
    assert agreed.decided_top_1 >= 0.99
    assert agreed.largest_difference < 0.05
    classes = [prediction.classes[0] for prediction in model.predict(images, top_k=1)]
    assert classes == [model.classes[row] for row in onnx.argmax(axis=1)]
    labels = [source.classes[test.labels[row]] for row in rows]
    accuracy = np.mean([name == label for name, label in zip(classes, labels, strict=True)])
    assert abs(accuracy - description.facts["metrics"]["test"]["accuracy"]) < 0.05


def test_its_recipe_is_one_that_can_be_trained_again() -> None:
    facts = read_description(embedded.BUNDLE).facts
    assert parse_recipe(to_toml(facts["recipe"]), "model.json").backbone == embedded.BACKBONE
