"""result.json and log.jsonl come back as they were written, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.results import result_of, validation
from thawnet.core.errors import RunError
from thawnet.metrics.result import (
    Baselines,
    Majority,
    OpenedFrom,
    Regression,
    Result,
    read_log,
    read_result,
    write_log,
    write_result,
)


@pytest.fixture
def result() -> Result:
    return result_of(
        "test",
        0.75,
        120,
        baselines=Baselines(Majority(0.25), Regression(0.5, (0.4, 0.6), 0.01, 90, 1e-3)),
        opened_from=OpenedFrom("insects", None),
        lines=("one", "test accuracy: 75.00 %"),
    )


def test_a_result_comes_back_as_it_was_written(result: Result, tmp_path: Path) -> None:
    write_result(tmp_path, result)
    assert read_result(tmp_path) == result


def test_a_log_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [validation(1, 0, 0.3), validation(1.5, 1, 0.4, kept=True)]
    write_log(tmp_path, rows)
    assert read_log(tmp_path) == rows


def test_the_test_part_is_quoted_where_it_was_read() -> None:
    both = result_of("validation", 0.9, 40)
    assert (both.headline, both.fitted_on) == ("validation", 40)
    tested = result_of(
        "test", 0.8, 60, metrics={**both.metrics, **result_of("test", 0.8, 60).metrics}
    )
    assert (tested.headline, tested.scores.accuracy, tested.fitted_on) == ("test", 0.8, 40)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("temperature", "warm", "'temperature' must be a number; received str 'warm'"),
        ("seed", 1.5, "'seed' must be a whole number; received float 1.5"),
        ("baselines", {"majority_class": {"accuracy": 2}}, r"'accuracy' is 2\.0"),
        ("phases", [7], r"'phases' must be a table, as in \[phases\]; received int 7"),
        ("data", None, r"'data' must be a table, .* received NoneType None"),
    ],
)
def test_a_value_of_another_kind_is_one_sentence(
    result: Result, tmp_path: Path, name: str, value: Any, told: str
) -> None:
    write_result(tmp_path, result)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(RunError, match=rf"result.json' is damaged \({told}\)$"):
        read_result(tmp_path)
