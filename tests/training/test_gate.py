"""The export gate: what predicts is what was trained, or nobody predicts with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import thawnet
from thawnet.bundle.onnx import to_onnx
from thawnet.core.errors import BundleError
from thawnet.recipe import TrainOptions
from thawnet.training import gate, run
from thawnet.training.gate import Agreement, agreement
from thawnet.training.run_folder import Outcome


def test_bundle_says_how_its_two_networks_agree(finished: Outcome) -> None:
    figures = json.loads((finished.folder / "bundle" / "model.json").read_text())["export"]
    assert figures["images"] == finished.result.metrics["validation"].images
    assert figures["same_top_1"] == figures["decided_top_1"] == 1
    assert 0 <= figures["largest_difference"] < 1e-4


def refuse(*_arguments: object) -> bytes:
    raise BundleError("no word for it")


def altered(parts: Mapping[str, nn.Module], *others: Any) -> bytes:
    """Export a network whose head says the opposite."""

    class Opposite(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return -parts["logits"](features)

    return to_onnx({**parts, "logits": Opposite()}, *others)


@pytest.mark.parametrize(
    ("export", "message"),
    [
        (refuse, "no word for it: the bundle holds no model.onnx"),
        (altered, "exported to ONNX, the network names another class for "),
    ],
)
def test_run_whose_network_cannot_be_exported_keeps_its_result(
    options: TrainOptions,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    export: Callable[..., bytes],
    message: str,
) -> None:
    monkeypatch.setattr(gate, "to_onnx", export)
    outcome = run.train(options)
    assert outcome.line.startswith("test accuracy: ")
    assert message in capfd.readouterr().err
    described = json.loads((outcome.folder / "bundle" / "model.json").read_text())
    assert list(described["sha256"]) == ["model.safetensors", "trained_on.bin"]
    with pytest.raises(BundleError, match=r"holds no model\.onnx"):
        thawnet.load(outcome.folder)


def test_agreement_counts_ties_apart() -> None:
    one = np.array([[2, 0, 0], [1, 1.001, 0], [0, 0, 3], [4, 0, 0]], np.float32)
    other = np.array([[2, 0, 0], [1.001, 1, 0], [0, 0, 3], [0, 4, 0]], np.float32)
    compared = agreement(one, other, temperature=1.0)
    assert (compared.images, compared.same_top_1, compared.decided_top_1) == (4, 0.5, 0.75)
    most = (np.exp(4) - 1) / (np.exp(4) + 2)
    assert compared.largest_difference == pytest.approx(most)


@pytest.mark.parametrize(("same", "passes"), [(0.9989, False), (0.999, True)])
def test_a_network_that_names_another_class_for_one_in_a_thousand_is_refused(
    options: TrainOptions,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    same: float,
    passes: bool,
) -> None:
    verdict = Agreement(images=1000, same_top_1=0.9, decided_top_1=same, largest_difference=0.1)
    monkeypatch.setattr(gate, "agreement", lambda *_: verdict)
    bundle = run.train(options).folder / "bundle"
    refused = "another class for 0.11 % of 1,000 validation" in capfd.readouterr().err
    assert (bundle / "model.onnx").exists() == passes != refused
    if passes:
        described = json.loads((bundle / "model.json").read_text())["export"]
        assert described.items() >= dataclasses.asdict(verdict).items()
