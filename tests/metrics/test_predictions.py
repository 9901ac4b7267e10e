"""predictions.csv: written whole, read back, refused when damaged."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from thawnet.core.errors import RunError
from thawnet.metrics.predictions import COLUMNS, read_predictions, write_predictions

FILE = Path("predictions.csv")
LOGITS = np.array([[2, 1, 0], [0, 1, 3], [0, 0, 0]], dtype=np.float32)
LABELS = np.array([0, 1, 2])
AWKWARD = ['z "quoted", comma.png', "a\nb/ü.png", "not utf-8 \udcff.png"]


def write(names: list[str] = AWKWARD) -> None:
    write_predictions(FILE, "test", names, LABELS, LOGITS, ("cat", "dog, big", "=fox"))


def test_awkward_names_come_back_sorted_by_image() -> None:
    write()
    found = read_predictions(FILE)
    assert found.part == "test"
    assert found.images == ["a\nb/ü.png", "not utf-8 \\udcff.png", 'z "quoted", comma.png']
    assert found.classes == ["dog, big", "=fox", "cat"]
    assert found.predicted == ["=fox", "cat", "cat"]
    assert found.hits.tolist() == [False, False, True]


def test_a_spreadsheet_runs_no_name_and_names_come_back() -> None:
    names = ["=1+1.png", "'=x.png", "-a.png"]
    write(names)
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["'=1+1.png", "''=x.png", "'-a.png"]
    assert rows[2]["class"] == "'=fox"
    assert sorted(read_predictions(FILE).images) == sorted(names)


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    write()
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert float(rows[0]["probability"]) == pytest.approx(0.665241, abs=1e-6)
    assert float(rows[0]["probability_of_class"]) == pytest.approx(0.665241, abs=1e-6)
    assert float(rows[1]["probability"]) == pytest.approx(0.843795, abs=1e-6)
    assert float(rows[1]["probability_of_class"]) == pytest.approx(0.114195, abs=1e-6)


HEAD = ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "other columns: nothing"),
        (b"image,label\na,b\n", "other columns: image, label; expected part, image, class,"),
        (HEAD.encode(), "rows are of 0 parts"),
        (HEAD.encode() + b"test,a.png,cat\n", "line 2 has not 6 fields"),
        (HEAD.encode() + b"test,a,c,c,1,1\nvalidation,b,c,c,1,1\n", "rows are of 2 parts"),
        (HEAD.encode() + b"test,\xff,c,c,1,1\n", "cannot be read"),
        (HEAD.encode() + b'test,"a,c,c,1,1\n', "cannot be read"),
        (HEAD.encode() + b"test," + b"a" * 200_000 + b",c,c,1,1\n", "cannot be read"),
    ],
)
def test_damaged_file_is_one_sentence(content: bytes, told: str) -> None:
    FILE.write_bytes(content)
    with pytest.raises(RunError, match=told):
        read_predictions(FILE)


def test_missing_file_says_what_to_do() -> None:
    with pytest.raises(RunError, match=r"has no predictions\.csv; .* train again"):
        read_predictions(FILE)
