"""`--epochs N 0`: the head alone, on a network that stays as it was, is a whole result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.patches import stop_after
from support.runs import under
from thawnet import job
from thawnet.bundle.model import load
from thawnet.core.errors import InterruptedRunError
from thawnet.recipe import TrainOptions
from thawnet.report.run_reader import read_finished
from thawnet.training.outputs import ITSELF


@pytest.mark.parametrize(
    ("recipe", "changes", "solved"),
    [
        ("quick", {}, True),  # few images: folded
        ("quick", {"val_share": 0.2, "test_share": 0.2}, True),
        ("seed", {"test_share": 0.2}, False),
    ],
)
def test_head_alone_is_trained_reported_and_predicts(
    options: TrainOptions, recipe: str, changes: dict[str, float], solved: bool
) -> None:
    call = replace(under(options, recipe), epochs=(2, 0), no_report=False, **changes)
    outcome = job.train(call)
    result = outcome.result
    assert [phase.name for phase in result.phases] == ["head"]
    assert (result.kept, result.phases[0].solved) == ("head", solved)
    assert not solved or result.standing == ITSELF
    own, start = (
        load_file(path) for path in (outcome.folder / "bundle/model.safetensors", call.weights)
    )
    for name, value in start.items():
        if not name.startswith("classifier.") and "num_batches" not in name:
            assert torch.equal(own[name], value), name
    report = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert "Epochs of the head" in report
    assert "Epochs of fine-tuning" not in report
    card = (outcome.folder / "bundle/README.md").read_text(encoding="utf-8")
    assert "first a new head on the frozen\nnetwork, and nothing more of it." in card
    photo = next(Path(call.data).rglob("*.png"))
    assert len(load(outcome.folder).predict([photo])) == 1
    assert read_finished(outcome.folder).result.kept == "head"


def test_stopped_head_is_resumed_to_the_same_bits(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = replace(under(options, "seed"), epochs=(3, 0), test_share=0.2)
    whole = job.train(call)
    with monkeypatch.context() as stopping:
        stop_after(stopping, 2)
        with pytest.raises(InterruptedRunError):
            job.train(replace(call, out=whole.folder.with_name("stopped")))
    resumed = job.train(TrainOptions(resume=str(whole.folder.with_name("stopped"))))
    for name in ("model.safetensors", "model.onnx"):
        assert (resumed.folder / "bundle" / name).read_bytes() == (
            whole.folder / "bundle" / name
        ).read_bytes()
