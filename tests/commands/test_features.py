"""`predict --features`: a row of numbers for each image, in the order of the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import thawnet
from support.commands import called
from thawnet import feature_file
from thawnet.core.errors import ImageError, UsageError

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(bundle: Path, capfd: pytest.CaptureFixture[str]) -> Call:
    """Return a function that calls `thawnet predict` with the bundle; see support.commands."""
    return lambda *words: called(capfd, "predict", *words, "--model", bundle)


@pytest.fixture
def names(photos: Callable[..., Path]) -> list[str]:
    """Return the names of twelve photos, in the order of results."""
    return sorted(map(str, photos({"a": 6, "b": 6}).rglob("*.png")))


def test_features_are_what_the_head_computes_the_logits_from(
    names: list[str], bundle: Path
) -> None:
    from safetensors.numpy import load_file

    model = thawnet.load(bundle)
    features = model.features(names)
    assert (features.dtype, len(features)) == (np.float32, 12)
    tensors = load_file(bundle / "model.safetensors")
    logits = features @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    found = [each.logits[0] for each in model.stream_outputs(names)]
    assert logits == pytest.approx(np.stack(found), rel=1e-4, abs=1e-4)


def test_features_of_a_broken_image_are_an_error_that_names_it(
    names: list[str], bundle: Path
) -> None:
    Path(names[3]).write_bytes(b"broken")
    model = thawnet.load(bundle)
    with pytest.raises(ImageError, match=r"image 4 \(.*003.png\): not an image"):
        model.features(names)
    with pytest.raises(UsageError, match="no images"):
        model.features([])


@pytest.mark.parametrize("broken", [(), (0, 1, 7), tuple(range(12))])
@pytest.mark.parametrize("suffix", feature_file.SUFFIXES)
def test_file_has_a_row_per_image_also_for_broken_ones(
    names: list[str],
    bundle: Path,
    call: Call,
    broken: tuple[int, ...],
    suffix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_file, "TOGETHER", 5)
    expected = thawnet.load(bundle).features(names)
    for number in broken:
        Path(names[number]).write_bytes(b"broken")
    status, out, err = call(*names, "--features", f"all{suffix}")
    assert status == bool(broken)
    assert len(out.splitlines()) == 12
    assert f"features all{suffix}\n" in err
    whole = [number for number in range(12) if number not in broken]
    if suffix == ".npy":
        rows = np.load(f"all{suffix}")
        assert (rows.dtype, rows.shape[0]) == (np.float32, 12)
        assert np.isnan(rows[list(broken)]).all()
        found = rows[whole]
    else:
        table = pyarrow.parquet.read_table(f"all{suffix}").to_pydict()
        assert table["image"] == names
        assert [row is None for row in table["features"]] == [n in broken for n in range(12)]
        found = np.array([row for row in table["features"] if row is not None], np.float32)
    if whole:
        assert found == pytest.approx(expected[whole], rel=1e-5, abs=1e-6)


def test_each_share_writes_its_own_features(names: list[str], call: Call) -> None:
    for number in (1, 2):
        call(*names, "--features", "all.npy", "--shard", f"{number}/2")
    shares = [np.load(f"all-{number}-of-2.npy") for number in (1, 2)]
    call(*names, "--features", "all.npy")
    assert np.stack(shares, 1).reshape(12, -1) == pytest.approx(np.load("all.npy"), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--features", "all.csv"), "--features 'all.csv': name a file that ends in .npy or"),
        (("--features", "all.npy", "--sort-into", "x"), "--sort-into and --features: choose one"),
    ],
)
def test_wrong_calls_are_one_line(
    words: tuple[str, ...], message: str, names: list[str], call: Call
) -> None:
    status, _, err = call(*names, *words)
    assert status == 2
    assert err.splitlines()[-1].startswith(f"thawnet: {message}")
    assert not list(Path().glob("all*"))


def test_parquet_without_its_package_is_one_line(
    names: list[str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thawnet.core.packages.missing", lambda packages: list(packages))
    status, _, err = call(*names, "--features", "all.parquet")
    assert status == 2
    assert "writing parquet needs packages that are not installed (pyarrow): " in err
    assert err.strip().endswith("pip install pyarrow")
