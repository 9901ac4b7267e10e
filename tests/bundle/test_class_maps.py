"""Class maps: they are what the logits are made of, and they know where."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.bundles import change_description
from thawnet.bundle.class_maps import class_map, read_class_weights
from thawnet.bundle.format import read_description
from thawnet.bundle.model import load
from thawnet.core.errors import BundleError
from thawnet.core.files import sha256_file
from thawnet.image.preprocess import Preprocess, seen_box


def test_mean_of_the_map_is_the_logit_without_bias(bundle: Path) -> None:
    model = load(bundle)
    assert model.class_weights is not None
    squares = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)
    outputs = model.outputs(squares, maps=True)
    assert outputs.feature_map is not None
    means = np.einsum("kc,nchw->nk", model.class_weights, outputs.feature_map)
    means /= outputs.feature_map[0, 0].size
    bias = outputs.logits - means
    np.testing.assert_allclose(bias, np.broadcast_to(bias[0], bias.shape), atol=1e-3)


def test_map_is_brightest_where_the_class_is() -> None:
    feature_map = np.zeros((2, 3, 3), np.float32)
    feature_map[0, 0, 2] = 4.0
    feature_map[0, 1, 1] = 1.0
    feature_map[1, 2, 2] = 9.0  # speaks against the class
    evidence = class_map(feature_map, np.array([1.0, -1.0], np.float32))
    assert evidence.tolist() == [[0, 0, 1], [0, 0.25, 0], [0, 0, 0]]


def test_class_that_is_nowhere_has_an_empty_map() -> None:
    assert not class_map(np.ones((1, 2, 2), np.float32), np.array([-1.0], np.float32)).any()


def test_prediction_explains_itself_when_asked(bundle: Path) -> None:
    model = load(bundle)
    image = Image.effect_noise((80, 40), 90).convert("RGB")
    plain, explained = (model.predict([image], 2, explain)[0] for explain in (False, True))
    assert plain.explanation is None
    assert explained.explanation is not None
    assert explained.explanation.maps.shape[0] == len(explained.classes) == 2
    assert explained.explanation.box == (0.25, 0, 0.75, 1)
    assert explained.probabilities == plain.probabilities


def test_box_is_the_square_in_the_middle() -> None:
    spec = Preprocess(96, 110, (0.5,) * 3, (0.5,) * 3)  # type: ignore[arg-type]
    left, top, right, bottom = seen_box(500, 375, spec)
    assert (right - left) * 500 == pytest.approx((bottom - top) * 375)
    assert (bottom - top) == pytest.approx(96 / 110)
    assert left + right == pytest.approx(1)
    assert top + bottom == pytest.approx(1)


def test_network_without_class_weights_has_no_maps(colours: Path) -> None:
    model = load(colours)
    assert model.class_weights is None
    assert model.predict([Image.new("RGB", (40, 40))], 1, explain=True)[0].explanation is None


def test_weights_read_here_are_those_that_safetensors_reads(bundle: Path) -> None:
    from safetensors.numpy import load_file

    tensor = load_file(bundle / "model.safetensors")["classifier.weight"]
    np.testing.assert_array_equal(read_class_weights(read_description(bundle)), tensor)


@pytest.mark.parametrize("name", ["classifier.nothing", "conv_stem.weight", "classifier.bias"])
def test_other_tensor_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    copied = shutil.copytree(bundle, tmp_path / "copied")
    architecture = replace(read_description(bundle).architecture, class_weights=name)
    change_description(copied, architecture=asdict(architecture))
    with pytest.raises(BundleError, match=name):
        _ = load(copied).class_weights


@pytest.mark.parametrize("end", [float("inf"), -12, 10**9])
def test_tensor_at_an_impossible_offset_is_refused(
    bundle: Path, tmp_path: Path, end: float
) -> None:
    copied = shutil.copytree(bundle, tmp_path / "copied")
    entry = {"dtype": "F32", "shape": [3, 1], "data_offsets": [0, end]}
    header = json.dumps({"classifier.weight": entry}).encode()
    file = copied / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    hashes = {**read_description(bundle).sha256, file.name: sha256_file(file)}
    change_description(copied, sha256=hashes)
    with pytest.raises(BundleError, match=r"does not hold 'classifier\.weight'"):
        _ = load(copied).class_weights
