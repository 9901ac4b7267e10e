"""Two runs side by side: the numbers, the words, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.figures import curves, figures_of, words
from support.results import result_of, validation
from thawnet.core.errors import RunError, UsageError
from thawnet.metrics.paired import p_value, verdict, winner
from thawnet.metrics.predictions import write_predictions
from thawnet.metrics.result import DataFacts, write_log, write_result
from thawnet.report import compare_plot
from thawnet.report.compare import Comparison, compare, table
from thawnet.report.compare_plot import plot_comparison, shortened

CLASSES = ("ant", "bee", "cat")
LABELS = np.arange(120) % 3


def said(comparison: Comparison) -> str:
    """Return the verdict of two runs."""
    return verdict(comparison.pairs, comparison.images)


def write_run(
    name: str,
    wrong: Sequence[int],
    *,
    part: str = "test",
    labels: np.ndarray = LABELS,
    content: str = "same",
    data: str = "insects",
    head_epochs: int = 3,
    **recipe: Any,
) -> Path:
    """Write a run folder as training leaves it; `wrong`: positions that the network misses."""
    folder = Path(name)
    folder.mkdir(parents=True)
    predicted = labels.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 3
    logits = np.eye(3, dtype=np.float32)[predicted]
    names = [f"{part}/{position}.png" for position in range(len(labels))]
    write_predictions(folder / "predictions.csv", part, names, labels, logits, CLASSES)
    recipe = {"name": "quick", "seed": 0, "split_seed": 0, "validate_on": "validation"} | recipe
    (folder / "recipe.toml").write_text(
        "".join(f"{key} = {json.dumps(value)}\n" for key, value in recipe.items())
        + "[finetune]\nlr = 0.001\n"
    )
    rows = [
        validation(epoch + 1, int(epoch >= head_epochs), 0.3 + 0.1 * epoch) for epoch in range(6)
    ]
    write_log(folder, rows)
    found = result_of(part, float((predicted == labels).mean()), len(labels))
    facts = DataFacts(data, "f", own_test=True, content={part: content})
    write_result(folder, replace(found, data=facts))
    return folder


@pytest.fixture
def a() -> Path:
    """Wrong on 12 of 120 images."""
    return write_run("runs/a", range(12))


@pytest.fixture
def b() -> Path:
    """Wrong on 30: 8 of those that A misses and 22 others."""
    return write_run("runs/b", range(4, 34), seed=1)


# --- numbers and words ---------------------------------------------------------------------------


def test_discordant_images_are_counted_and_the_better_run_is_named(a: Path, b: Path) -> None:
    found = compare(a, b)
    pairs = found.pairs
    assert (pairs.both, pairs.only_a, pairs.only_b, pairs.neither) == (86, 22, 4, 8)
    assert winner(found.pairs) == "A"
    assert verdict(found.pairs, found.images) == (
        "A is better: 90.00 % against 75.00 %, difference 15.00 points (6.91 to 23.27), "
        "McNemar p = 0.0005 on 120 test images"
    )
    assert said(compare(b, a)).startswith("B is better: 90.00 % against 75.00 %, difference 15")


def test_no_difference_is_said_to_be_none(a: Path) -> None:
    other = write_run("runs/c", range(1, 13))
    assert said(compare(a, other)) == (
        "no significant difference: A 90.00 %, B 90.00 %, difference 0.00 points "
        "(-3.73 to 3.73), McNemar p = 1 on 120 test images"
    )


def test_table_shows_only_what_differs(a: Path, b: Path) -> None:
    lines = table(compare(a, b))
    assert "recipe seed             0  1" in lines
    assert not any(word in line for line in lines for word in ("split_seed", "torch", "sha256"))
    assert "wall time               40.0 s                 40.0 s" in lines


def test_runs_of_one_recipe_are_said_to_be_so(a: Path) -> None:
    lines = table(compare(a, write_run("runs/c", [0])))
    assert "recipe, machine, versions, weights and data are the same" in lines


def test_classes_are_listed_where_each_run_wins() -> None:
    one = write_run("one", [0, 3, 6, 1])  # three ants and a bee
    other = write_run("other", [1, 2, 5])  # the same bee and two cats
    lines = table(compare(one, other))
    at = lines.index("where A is better       A right  B right  images")
    assert lines[at + 1] == "cat                     40       38       40"
    at = lines.index("where B is better       A right  B right  images")
    assert lines[at + 1] == "ant                     37       40       40"
    assert lines[at + 2] == ""


def test_validation_is_compared_when_test_was_not_read_and_said_so() -> None:
    one, other = (write_run(name, [2], part="validation") for name in ("one", "other"))
    found = compare(one, other)
    assert table(found)[2] == (
        "insects: 120 validation images, the same for both; the test part was not read (--no-test)"
    )
    assert verdict(found.pairs, found.images).endswith("on 120 validation images")


@pytest.mark.parametrize(
    ("p", "told"),
    [
        (1.0, "p = 1"),
        (0.0496, "p = 0.0496"),
        (0.0312345, "p = 0.0312"),
        (0.0000312, "p = 0.00003"),
        (2e-300, "p < 0.000001"),
    ],
)
def test_p_is_read_without_powers_of_ten(p: float, told: str) -> None:
    assert p_value(p) == told


# --- what is refused -----------------------------------------------------------------------------


def test_one_run_twice_is_a_wrong_call(a: Path) -> None:
    with pytest.raises(UsageError, match="are the same run"):
        compare(a, Path("runs/../runs/a"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"content": "x", "data": "birds"}, "data set 'insects' against 'birds'; `thawnet compare"),
        (
            {"content": "x", "labels": LABELS[:60]},
            "test images: 120 against 60 images; `thawnet compare",
        ),
        (
            {"content": "x", "labels": LABELS % 2},
            "3 against 2 classes, 'cat' only in the first; `thawnet compare",
        ),
        ({"content": "x", "split_seed": 7}, "split_seed 0 against 7; `thawnet compare"),
        ({"content": "x"}, "but other pixels or labels; `thawnet compare"),
        (
            {"part": "validation"},
            "there are no images that both were measured on; `thawnet compare",
        ),
        (
            {"labels": np.roll(LABELS, 1)},
            "image 'test/0.png' is of class 'ant' in one and 'cat' in",
        ),
    ],
)
def test_different_test_data_is_refused_with_what_differs(
    a: Path, changes: dict[str, Any], told: str
) -> None:
    other = write_run("runs/other", [], **changes)
    with pytest.raises(RunError, match=told):
        compare(a, other)


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda run: run.rename("elsewhere"), "'runs/b': no such folder"),
        (lambda run: (run / "result.json").unlink(), r"is not finished; .* --resume runs/b$"),
        (
            lambda run: (run / "recipe.toml").unlink(),
            "is not a run folder: there is no recipe.toml",
        ),
        (lambda run: (run / "log.jsonl").unlink(), "log.jsonl is missing"),
        (lambda run: (run / "predictions.csv").unlink(), "has no predictions.csv"),
        (lambda run: (run / "log.jsonl").write_text(""), r"log\.jsonl' is damaged \(it holds no"),
        (lambda run: (run / "log.jsonl").write_text("[]"), r"log\.jsonl' is damaged"),
        (lambda run: (run / "result.json").write_text("[]"), r"result\.json' is damaged"),
        (lambda run: (run / "result.json").write_text("{"), r"result\.json' is damaged"),
        (lambda run: (run / "result.json").write_text("[" * 99999), r"result\.json' is damaged"),
        (lambda run: (run / "result.json").write_bytes(b"\xff"), r"result\.json' is damaged"),
        (
            lambda run: change(run / "result.json", '"top_5": 1.0', '"top_5": NaN'),
            r"result\.json' is damaged \('top_5' is nan\)",
        ),
        (
            lambda run: change(run / "result.json", '"temperature"', '"heat"'),
            r"result\.json' is damaged \(field 'temperature' is missing\)",
        ),
        (
            lambda run: change(run / "predictions.csv", "test/0.png,ant,ant", "test/0.png,ant,bee"),
            r"74\.17 % of its rows are right, not 75\.00 %; the file was changed",
        ),
        (
            lambda run: change(run / "predictions.csv", "test/7.png", "test/seven.png"),
            r"differently: 'test/7\.png' is in one of them only",
        ),
        (
            lambda run: change(run / "result.json", '"images": 120', '"images": 10000'),
            "holds 120 images and its result.json speaks of 10000",
        ),
    ],
)
def test_damaged_run_is_one_sentence(
    a: Path, b: Path, damage: Callable[[Path], object], told: str
) -> None:
    damage(b)
    with pytest.raises(RunError, match=told) as caught:
        compare(a, b)
    assert "\n" not in str(caught.value)


# --- the picture ---------------------------------------------------------------------------------


@pytest.mark.parametrize("head_epochs", [0, 1, 2, 3])
def test_picture_is_drawn_wherever_the_other_run_thaws(
    a: Path, head_epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = figures_of(monkeypatch, compare_plot)
    name = "runs/" + "a very long name, $with$ _signs_ and 名前 " * 5
    other = write_run(name, [], head_epochs=head_epochs)
    found = compare(a, other)
    plot_comparison(Path("compare.png"), found)
    with Image.open("compare.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1800, 960))
    histories, accuracies, difference, discordant = figures[0].axes
    for drawn, run in zip(curves(histories), (found.a, found.b), strict=False):
        assert drawn == (
            [at.epoch for at in run.history],
            pytest.approx([100 * at.val_accuracy for at in run.history]),
        )
    told = {0: ["A thawed"], 3: ["thawed: fine-tuning"]}.get(head_epochs, ["A thawed", "B thawed"])
    assert words(histories) == told
    shares = [f"{100 * run.result.scores.accuracy:.2f} %" for run in (found.a, found.b)]
    assert words(accuracies) == shares
    for (x, _), run in zip(curves(accuracies)[1::2], (found.a, found.b), strict=True):
        assert x == [pytest.approx(100 * run.result.scores.accuracy)]
    assert curves(difference)[1][0] == [pytest.approx(100 * found.pairs.difference)]
    bars = [bar.get_width() for bar in discordant.patches]
    assert bars == [found.pairs.only_a, found.pairs.only_b]


def test_long_names_keep_their_end() -> None:
    assert shortened("runs/short", 20) == "runs/short"
    cut = shortened("x" * 200 + "/digits-quick-12", 40)
    assert len(cut) == 40
    assert cut.endswith("/digits-quick-12")
