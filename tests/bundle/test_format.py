"""A bundle: the same bytes for the same content, and nothing but a whole one is opened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import thawnet
from support.bundles import change_description, write_random_bundle
from support.runs import TINY
from thawnet.bundle import format as bundle_format
from thawnet.bundle.format import are_among, short_hashes
from thawnet.core.errors import BundleError
from thawnet.core.files import sha256_file
from thawnet.data.items import sha256_rows
from thawnet.image.preprocess import Preprocess

WRITE = f"""
import sys
from pathlib import Path
from support.bundles import write_random_bundle

write_random_bundle(Path(sys.argv[1]), "{TINY}", epsilon=1e-3, licence="Köttur-1.0")
"""


def test_images_are_known_by_the_beginning_of_their_hash() -> None:
    hashes = sha256_rows([b"one", b"two", b"three", b"two"])
    known = short_hashes(hashes[:2])
    assert are_among(hashes, known).tolist() == [True, True, False, True]
    assert are_among(hashes[:0], known).tolist() == []


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    """Return a copy of the bundle to spoil."""
    return shutil.copytree(bundle, tmp_path / "copied")


@pytest.mark.slow  # another process, that imports all of torch
def test_equal_networks_give_equal_files_in_different_processes(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    write_random_bundle(folders[0], TINY, epsilon=1e-3, licence="Köttur-1.0")
    there = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", WRITE, str(folders[1])], check=True, env=there)
    names = ["README.md", "model.json", "model.onnx", "model.safetensors", "trained_on.bin"]
    assert sorted(file.name for file in folders[0].iterdir()) == names
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    assert b"site-packages" not in (folders[0] / "model.onnx").read_bytes()
    with safe_open(folders[0] / "model.safetensors", framework="pt") as file:
        assert file.metadata()["bn_eps"] == "0.001"
        assert file.metadata()["license"] == "Köttur-1.0"
        assert torch.isfinite(file.get_tensor("classifier.weight")).all()


def test_tensors_start_at_a_multiple_of_8_bytes(bundle: Path) -> None:
    content = (bundle / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])


def test_run_folder_and_bundle_are_both_opened(bundle: Path) -> None:
    assert thawnet.load(bundle).classes == ("a", "b", "c")
    assert thawnet.load(str(bundle.parent)).path == bundle


def changed(**values: Any) -> Callable[[Path], object]:
    """Return a function that sets fields of model.json."""
    return lambda folder: change_description(folder, **values)


def cut(name: str) -> Callable[[Path], object]:
    """Return a function that leaves out the last two bytes of a file."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-2])


SPEC = Preprocess(48, 40, (0.5, 0.5, 0.5), (0.5, 0.25, 0.5)).as_dict()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (changed(format=1), "format 1, and this thawnet reads format 5"),
        (changed(format="new"), "format 'new'"),
        (changed(classes=["a", "b"]), "the network takes and gives .* copy the bundle again"),
        (changed(classes=["b", "a", "c"]), "the classes in model.json is not what"),
        (changed(classes=["a", "a", "c"]), "different class names"),
        (changed(classes=["a", "b", 3]), "expected text, received 3"),
        (changed(preprocess={**SPEC, "mean": [0.4, 0.5, 0.5]}), "the preprocess in model.json"),
        (changed(preprocess={**SPEC, "mean": [float("nan"), 0, 0]}), "three finite numbers"),
        (changed(preprocess={**SPEC, "mean": "white"}), "is not understood"),
        (changed(preprocess={**SPEC, "side": 10**9}), "1 to 4096 pixels, received 1000000000"),
        (changed(preprocess={**SPEC, "reduce": "nearest"}), "does not know"),
        (changed(preprocess=7), "is not understood"),
        (changed(temperature=1.0), "the temperature in model.json is not what"),
        (changed(temperature=0.0), "temperature must be 0.01 to 100, received 0.0"),
        (changed(temperature=float("nan")), "temperature must be 0.01 to 100, received nan"),
        (changed(temperature="hot"), "temperature must be 0.01 to 100, received 'hot'"),
        (changed(unfamiliar={"above": 1.0, "false_alarms": 0.05}), "takes and gives"),
        (changed(unfamiliar={"above": float("inf"), "false_alarms": 0.05}), "a finite number"),
        (changed(unfamiliar={"above": 1.0, "false_alarms": 1}), "above 0 and below 1"),
        (changed(unfamiliar={"above": 1.0}), "field 'false_alarms' is missing"),
        (changed(architecture={}), "field 'backbone' is missing"),
        (changed(sha256={}), f"holds no model.onnx: {TINY} could not be exported"),
        (cut("model.onnx"), "is not the file that model.json describes"),
        (cut("model.json"), "is not JSON"),
        (lambda folder: (folder / "model.onnx").unlink(), "cannot be read"),
        (lambda folder: (folder / "model.json").write_text("[1]"), "holds no JSON object"),
        (lambda folder: (folder / "model.json").unlink(), "holds no bundle"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_spoilt_bundle_is_refused_in_a_sentence(
    copied: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(copied)
    with pytest.raises(BundleError, match=message) as caught:
        thawnet.load(copied)
    assert "\n" not in str(caught.value)


def test_network_that_onnx_runtime_cannot_open_is_a_sentence(copied: Path) -> None:
    (copied / "model.onnx").write_bytes(b"not a network")
    change_description(copied, sha256={"model.onnx": sha256_file(copied / "model.onnx")})
    with pytest.raises(BundleError, match="ONNX Runtime cannot open the network"):
        thawnet.load(copied)


def test_files_above_the_limits_are_not_read(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_format, "MAX_FILE", 2_000_000)
    (copied / "model.onnx").write_bytes(bytes(3_000_000))
    with pytest.raises(BundleError, match=r"model.onnx' holds 3 MB; at most 2 MB are read"):
        thawnet.load(copied)
    monkeypatch.setattr(bundle_format, "MAX_DESCRIPTION", 10)
    with pytest.raises(BundleError, match=r"model.json' holds 0 MB; at most 0 MB are read"):
        thawnet.load(copied)
