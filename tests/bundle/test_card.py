"""The model card: what people and the Hugging Face hub read first."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from support.runs import TINY
from thawnet.recipe import TrainOptions
from thawnet.training import run


def test_card_tells_the_figures_of_the_run_and_shows_names_as_text(
    photos: Callable[..., Path], options: TrainOptions
) -> None:
    folder = photos({"<script>": 24, "b | *c*": 24}, "named")
    outcome = run.train(dataclasses.replace(options, data=str(folder)))
    card = (outcome.folder / "bundle" / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    lines = (line.split(": ", 1) for line in front.splitlines())
    fields = {name: json.loads(value) for name, value in lines}
    score = outcome.result.metrics["test"]
    assert fields["pipeline_tag"] == "image-classification"
    assert (fields["license"], fields["license_name"]) == ("other", "not stated")
    (entry,) = fields["model-index"]
    assert entry["results"][0]["metrics"][0]["value"] == score.accuracy
    assert f"| test accuracy | {100 * score.accuracy:.2f} % |" in body
    assert f"{score.images:,} images" in body
    assert "Classes (2): \\<script\\>, b \\| \\*c\\*." in body
    assert "<script>" not in card.replace("\\<script\\>", "")
    assert "thawnet predict IMAGES" in body
    assert f"# {TINY} for named" in body
