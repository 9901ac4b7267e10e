"""The command `evaluate`: figures on stdout, the accuracy last; progress and mistakes on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import thawnet
from support.commands import called
from support.runs import TINY


@pytest.fixture
def data(photos: Callable[..., Path]) -> Path:
    """Return train and test of the classes that the bundle of the tests knows."""
    photos({"a": 2, "b": 2}, "data/train")
    return photos({"a": 9, "b": 6}, "data/test", start=10).parent


def test_table_ends_with_the_accuracy_as_it_is_quoted(
    data: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = called(capfd, "evaluate", bundle, data, "--workers", 1)
    assert status == 0, err
    first, second, third = err.splitlines()
    assert first == f"model {bundle}: {TINY}, 3 classes, 48 px"
    assert second == "evaluating on the test part of data: 15 images"
    assert third.startswith("15 images in ")
    lines = out.splitlines()
    assert lines[0].startswith(
        "data, its test part: 15 images in 2 classes, each predicted as one of"
    )
    assert lines[-1] == thawnet.evaluate(bundle, str(data)).line
    assert lines[-1].startswith("test accuracy: ")


def test_json_is_one_object_of_all_that_was_found(
    data: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = called(
        capfd, "evaluate", bundle, data.name, "--data-dir", data.parent, "--json"
    )
    assert status == 0
    wanted = thawnet.evaluate(bundle, str(data)).as_dict()
    assert json.loads(out) == json.loads(json.dumps(wanted))
    train, _, _ = called(capfd, "evaluate", bundle, data, "--part", "train")
    assert train == 0


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_unreadable_image_is_listed_and_the_status_is_1(
    data: Path, bundle: Path, capfd: pytest.CaptureFixture[str], how: list[str]
) -> None:
    (data / "test" / "b" / "odd\udcff.png").write_bytes(b"broken")
    status, out, err = called(capfd, "evaluate", bundle, data, *how)
    assert status == 1
    assert err.splitlines()[-1] == (
        "thawnet: 1 of 16 images could not be read; the results list them, the figures leave them "
        "out"
    )
    if how:
        rows = json.loads(out)["unreadable"]
        assert rows == [
            {"image": "test/b/odd\udcff.png", "reason": "not an image in a known format"}
        ]
    else:
        assert "cannot be read\ntest/b/odd?.png         not an image in a known format\n" in out
        assert out.splitlines()[-1].endswith("15 images)")


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("BUNDLE", "DATA", "--workers", "0"), 2, "--workers 0: must be at least 1"),
        (
            ("BUNDLE", "DATA", "--part", "val"),
            2,
            "--part val: 'data' has only train and test, and",
        ),
        (("nowhere", "DATA"), 1, "'nowhere': no such folder; give a finished run"),
        (("BUNDLE", "nowhere"), 1, "no data at 'nowhere'"),
        (("DATA", "BUNDLE"), 1, "'DATA': holds no bundle; give a finished run"),
    ],
)
def test_mistake_is_one_line_and_a_status(
    arguments: tuple[str, ...],
    status: int,
    told: str,
    data: Path,
    bundle: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    places = {"BUNDLE": str(bundle), "DATA": str(data)}
    got, out, err = called(capfd, "evaluate", *(places.get(word, word) for word in arguments))
    assert (got, out) == (status, "")
    assert err.splitlines()[-1].startswith(f"thawnet: {told.replace('DATA', str(data))}")
