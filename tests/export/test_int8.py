"""int8: calibrated on what trained, measured on what validated, written only if it passes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import thawnet
from support.runs import write_random_weights
from thawnet.bundle.format import read_description, read_onnx
from thawnet.bundle.meaning import Unfamiliar
from thawnet.bundle.model import Model
from thawnet.bundle.onnx import to_onnx
from thawnet.core.errors import BundleError
from thawnet.export import int8
from thawnet.export.int8 import Quantised, images_per_second, quantise
from thawnet.export.pt2 import rebuild
from thawnet.recipe import TrainOptions
from thawnet.training import run
from thawnet.training.familiarity import middle_of, pooled
from thawnet.training.gate import outputs
from thawnet.training.reopening import reopen_train_val
from thawnet.training.run_folder import Outcome


def quantised(folder: Path, **more: Any) -> Quantised:
    """Quantise the network of a run."""
    description = read_description(folder)
    train_val = reopen_train_val(description, None, None)
    return quantise(description, read_onnx(description), *train_val, **more)


def ends(onnx: bytes) -> list[tuple[str, str, int]]:
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    inputs_and_outputs = [*session.get_inputs(), *session.get_outputs()]
    return [(end.name, end.type, len(end.shape)) for end in inputs_and_outputs]


def test_int8_network_is_small_and_looks_the_same_from_outside(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A network whose weights outweigh the scales that come with integers.
    weights = write_random_weights(tmp_path / "weights.safetensors", "test_resnet")
    options = dataclasses.replace(options, backbone="test_resnet", weights=str(weights))
    looked_at: list[tuple[set[str], int]] = []
    plain = int8.squares_of

    def spy(images: Any, rows: Any, crop: int) -> Any:
        looked_at.append(({images.names[row] for row in rows}, len(rows)))
        return plain(images, rows, crop)

    monkeypatch.setattr(int8, "squares_of", spy)
    monkeypatch.setattr(int8, "CALIBRATION_IMAGES", 30)
    folder = run.train(options).folder
    network, description = quantised(folder), read_description(folder)
    before = read_onnx(description)
    assert ends(network.onnx) == ends(before)
    assert len(network.onnx) < 0.4 * len(before)
    train, val = reopen_train_val(description, options.data, None)
    (calibrated, count), (measured, _), _timed = looked_at
    assert count == network.figures["calibration_images"] == 30
    assert calibrated < set(train.names)
    assert measured == set(val.names)
    assert network.figures["images"] == len(val)
    assert min(network.figures["images_per_second"].values()) > 0


def test_a_worse_network_is_refused_unless_it_is_wanted_anyway(
    finished: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "evidence_of_loss", lambda *_: "9 lost, 0 gained")
    with pytest.raises(
        BundleError, match=r"chance \(9 lost, 0 gained\), .*nothing is written; .*--anyway"
    ):
        quantised(finished.folder)
    assert quantised(finished.folder, anyway=True).worse == "9 lost, 0 gained"


def logits_of(hits: list[int], margin: float = 3.0) -> np.ndarray:
    """Return logits of two classes, (n, 2); class 0 is first where there is a 1."""
    return np.array([[margin, 0.0] if hit else [0.0, margin] for hit in hits], np.float32)


def test_worse_is_what_chance_does_not_explain() -> None:
    right = np.zeros(1000, np.int64)  # class 0 throughout
    all_right = logits_of([1] * 1000)
    assert int8.evidence_of_loss(all_right[:20], logits_of([0] + [1] * 19), right[:20]) == ""
    assert int8.evidence_of_loss(all_right, logits_of([0] * 5 + [1] * 995), right) == ""
    evidence = int8.evidence_of_loss(all_right, logits_of([0] * 12 + [1] * 988), right)
    assert evidence == "12 lost, 0 gained, McNemar p = 0.00049"
    many = np.zeros(9000, np.int64)
    assert (
        int8.evidence_of_loss(logits_of([1] * 9000), logits_of([0] * 12 + [1] * 8988), many) == ""
    )
    # Better by as much is not worse, and near ties are no losses.
    assert int8.evidence_of_loss(logits_of([0] * 12 + [1] * 988), all_right, right) == ""
    nearly = logits_of([1] * 1000, margin=1e-4)
    assert int8.evidence_of_loss(nearly, logits_of([0] * 12 + [1] * 988), right) == ""


def test_speeds_are_those_of_each_model(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Timed:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def all_logits(self, squares: Any) -> None:
            clock[0] += self.seconds

    clock = [0.0]
    monkeypatch.setattr(int8.time, "perf_counter", lambda: clock[0])
    models: list[Any] = [Timed(0.5), Timed(0.25)]
    assert images_per_second(models, np.zeros((10, 1), np.uint8)) == [20, 40]


def test_logits_of_many_squares_are_those_of_each(bundle: Path) -> None:
    model = thawnet.load(bundle, threads=2)
    squares = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), np.uint8)
    logits = model.all_logits(squares)
    assert logits.shape == (20, 3)
    assert logits[13] == pytest.approx(model.outputs(squares[13:14]).logits[0], rel=1e-4, abs=1e-4)


def test_what_logits_do_not_depend_on_stays_as_it_is(bundle: Path) -> None:
    class Norm(nn.Module):
        """An unfamiliarity of operators that are quantised elsewhere."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(network.shapes[stage][0], 1, bias=False)

        def forward(self, middle: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            return self.layer(pooled(middle))[:, 0] + logits[:, 0]

    description = read_description(bundle)
    network = rebuild(description)
    stage = middle_of(network)
    assert stage is not None
    meaning = dataclasses.replace(description.meaning, unfamiliar=Unfamiliar(1.0, 0.05))
    description = dataclasses.replace(description, meaning=meaning)
    content = to_onnx(outputs(network, stage), meaning, Norm())
    squares = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), np.uint8)
    rounded = int8._static(description, content, squares, lambda done: None)
    model = onnx.load_model_from_string(rounded)
    made_by = {name: node for node in model.graph.node for name in node.output}
    assert made_by["unfamiliarity"].op_type == "Add"
    assert {made_by[name].op_type for name in made_by["unfamiliarity"].input} == {"Gather"}
    one, other = (Model(description, each).outputs(squares) for each in (rounded, content))
    assert one.unfamiliarity is not None
    assert other.unfamiliarity is not None
    assert np.corrcoef(one.unfamiliarity, other.unfamiliarity)[0, 1] > 0.9
