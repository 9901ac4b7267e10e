"""The command `export`: nothing is written unless the bundle is whole and the gate passed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import thawnet
from support.commands import called
from support.runs import TINY
from thawnet import cli
from thawnet.core.errors import BundleError
from thawnet.core.packages import TRAIN_PACKAGES
from thawnet.export import int8
from thawnet.training import reopening
from thawnet.training.run_folder import Outcome


def refuse(*_arguments: object, **_options: object) -> Any:
    raise BundleError("refused")


def test_onnx_is_the_bundles_model(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capfd, "export", bundle, "--to", "onnx")
    assert status == 0, err
    written = Path(f"{TINY}.onnx").read_bytes()
    assert written == (bundle / "model.onnx").read_bytes()
    digest = hashlib.sha256(written).hexdigest()
    assert out == f"{TINY}.onnx: {len(written) / 1e6:.1f} MB, SHA-256 {digest} as in the bundle\n"
    assert err.endswith(f"classes, preprocessing and temperature: {bundle / 'model.json'}\n")


def test_run_folder_and_chosen_name(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capfd, "export", bundle.parent, "--to", "onnx", "--out", "deep/a.onnx")
    assert (status, out[:12]) == (0, "deep/a.onnx:")
    assert Path("deep/a.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()


def test_pt2_is_written_with_its_figure(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capfd, "export", bundle, "--to", "pt2")
    assert status == 0, err
    line = rf"{TINY}.pt2: \d+\.\d MB, logits as model.onnx gives them \(.* \d\.\de-\d\d\)\n"
    assert re.fullmatch(line, out)
    assert Path(f"{TINY}.pt2").stat().st_size > 0.4e6


def test_openvino_writes_two_files_that_it_runs(
    bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    words = ("export", bundle, "--to", "openvino", "--out", "net.xml")
    status, out, err = called(capfd, *words)
    assert status == 0, err
    line = r"net.xml: \d\.\d MB with net.bin, logits as model.onnx gives them \(.* (\S+)\)\n"
    match = re.fullmatch(line, out)
    assert match is not None
    assert float(match[1]) < 1e-3
    assert b"/tmp" not in Path("net.xml").read_bytes()
    network = openvino.Core().compile_model("net.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    squares = np.random.default_rng(3).integers(0, 256, (7, 40, 40, 3), np.uint8)
    outputs = network({"images": squares})
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    for name in ("logits", "features"):
        (reference,) = session.run([name], {"images": squares})
        assert outputs[name] == pytest.approx(reference, rel=1e-3, abs=1e-3)
    Path("net.xml").unlink()
    status, _, err = called(capfd, *words)
    occupied = "'net.bin' already exists; remove it, or choose another with --out"
    assert (status, err) == (2, f"thawnet: {occupied}\n")
    Path("net.bin").unlink()
    monkeypatch.setattr(openvino, "save_model", refuse)
    status, _, err = called(capfd, *words)
    assert status == 1
    assert "cannot be converted by OpenVINO (refused)" in err.splitlines()[-1]


def test_int8_bundle_predicts(
    finished: Outcome, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # This network has learned next to nothing: its nearest classes are as good as equal.
    monkeypatch.setattr(int8, "evidence_of_loss", lambda *_: "")
    folder = finished.folder
    status, out, err = called(capfd, "export", folder, "--to", "onnx-int8")
    assert status == 0, err
    name = f"{folder.name}-int8"
    assert re.fullmatch(
        rf"{name}: \d\.\d MB \(float32 \d\.\d MB\); on \d+ validation images accuracy \S+ % "
        r"\(float32 \S+ %\), the same class for \S+ %, [\d,]+ images/s \(float32 [\d,]+\)\n",
        out,
    )
    assert {file.name for file in Path(name).iterdir()} == {
        *("README.md", "model.json", "model.onnx", "trained_on.bin")
    }
    before, after = (
        json.loads((path / "model.json").read_text()) for path in (folder / "bundle", Path(name))
    )
    same = ("format", "architecture", "classes", "preprocess", "temperature", "unfamiliar", "data")
    assert {field: after[field] for field in same} == {field: before[field] for field in same}
    digest = hashlib.sha256(Path(name, "model.onnx").read_bytes()).hexdigest()
    trained_on = before["sha256"]["trained_on.bin"]
    assert after["sha256"] == {"model.onnx": digest, "trained_on.bin": trained_on}
    card = Path(name, "README.md").read_text(encoding="utf-8")
    assert f"# {TINY} for photos in int8" in card
    exact, accuracy = (100 * share for share in after["export"]["validation_accuracy"].values())
    assert f"| accuracy | {exact:.2f} % | {accuracy:.2f} % |" in card
    assert "model-index" not in card  # whose figures would be float32's
    assert set(after["export"]["images_per_second"]) == {"float32", "int8"}
    # A page of the same run is tried on its validation images, which it finds too.
    status, out, err = called(capfd, "export", folder, "--to", "page")
    assert status == 0, err
    change = r"float16, which changes probabilities by up to (\S+) on (\d+) validation images"
    off, count = re.findall(change, out)[0]
    assert float(off) <= 0.01
    assert int(count) == after["export"]["images"]
    # Those figures were float32's.
    assert "metrics" not in after
    assert after["quantised_from"]["metrics"] == before["metrics"]
    assert after["quantised_from"]["sha256"] == before["sha256"]

    images = sorted(folder.parent.rglob("photos/*/*.png"))[::9]
    shares, exact = (
        [dict(zip(one.classes, one.probabilities, strict=True)) for one in model.predict(images, 3)]
        for model in (thawnet.load(name), thawnet.load(folder))
    )
    assert shares == [pytest.approx(each, abs=0.1) for each in exact]
    assert cli.main(["predict", str(images[0]), "--model", name]) == 0
    for form in ("pt2", "onnx-int8"):
        status, _, err = called(capfd, "export", name, "--to", form, "--out", f"again.{form}")
        assert status == 1
        assert f"'{name}' holds no model.safetensors: its network is quantised" in err


def test_network_that_the_gate_refuses_leaves_nothing(
    bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reopening, "reopen_train_val", lambda *_: (None, None))
    monkeypatch.setattr(int8, "quantise", refuse)
    status, out, err = called(capfd, "export", bundle, "--to", "onnx-int8")
    assert (status, out) == (1, "")
    assert err.endswith("thawnet: refused\n")
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--to", "onnx", "--out", "a.pt"), 2, "--to onnx writes a .onnx file; name it so, as in"),
        (("--to", "openvino", "--out", "a.bin"), 2, "as in model.xml"),
        (("--to", "pt2", "--anyway"), 2, "--anyway: only for onnx-int8 and litert-int8"),
        (("--to", "page", "--data", "digits"), 1, "does not say what the network was trained"),
        (("--to", "pt2", "--data", "digits"), 2, "--data 'digits': --to pt2 reads no data"),
        (("--to", "onnx", "--data-dir", "d"), 2, "--data-dir 'd': --to onnx reads no data"),
        (("--to", "onnx", "--out", "there.onnx"), 2, "'there.onnx' already exists; remove it"),
        (("--to", "onnx-int8", "--out", "there"), 2, "'there' already exists"),
        (("--to", "onnx-int8", "--data", "digits"), 1, "does not say what the network was trained"),
        (("--to", "onnx", "--single-file"), 2, "--single-file: --to onnx writes no page; leave it"),
        (("--to", "page", "--out", "a.html"), 2, "--out 'a.html': this writes a folder"),
        (("--to", "page", "--single-file", "--out", "a"), 2, "this writes a .html file; name it"),
        (("--to", "litert", "--data", "digits"), 2, "--to litert reads no data; leave it out"),
        (("--to", "coreml", "--out", "a.zip"), 2, "writes a .mlpackage file; name it so"),
        (("--to", "page", "--out", "there"), 2, "'there' already exists; remove it"),
    ],
)
def test_mistake_is_one_line_and_a_status(
    bundle: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    Path("there").mkdir()
    Path("there.onnx").touch()
    got, out, err = called(capfd, "export", bundle, *arguments)
    assert (got, out) == (status, "")
    assert message in err.splitlines()[-1]
    assert sorted(path.name for path in Path().iterdir()) == ["there", "there.onnx"]


@pytest.mark.parametrize(
    ("form", "package", "line"),
    [
        ("openvino", "openvino", "pip install openvino"),
        ("pt2", "torch", "pip install 'thawnet[train]'"),
        ("onnx-int8", "onnx", "pip install 'thawnet[train]'"),
        ("litert", "torch", "pip install 'thawnet[train]'"),
        ("coreml", "coremltools", "pip install coremltools"),
    ],
)
def test_missing_package_is_named_with_its_pip_line(
    bundle: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    package: str,
    line: str,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    status, out, err = called(capfd, "export", bundle, "--to", form)
    assert (status, out) == (2, "")
    assert err == (
        f"thawnet: --to {form} needs packages that are not installed ({package}): {line}\n"
    )


def test_page_needs_no_package_of_training(
    bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TRAIN_PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in TRAIN_PACKAGES else find(name)
    )
    status, out, err = called(capfd, "export", bundle, "--to", "page", "--out", "site")
    assert status == 0, err
    assert "the page's weights stay in float32: onnx is not installed" in err
    assert out.endswith("weights in float32, as the bundle's\n")
    assert Path("site/index.html").is_file()


@pytest.mark.parametrize(
    ("form", "file"),
    [
        *((form, "model.onnx") for form in ("onnx", "pt2", "openvino", "onnx-int8", "page")),
        ("pt2", "model.safetensors"),
    ],
)
def test_spoilt_bundle_is_not_exported(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str, file: str
) -> None:
    if form == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    copied = shutil.copytree(bundle, tmp_path / "copied")
    with (copied / file).open("ab") as opened:
        opened.write(b"0")
    status, out, err = called(capfd, "export", copied, "--to", form)
    assert (status, out) == (1, "")
    assert f"{file}' is not the file that model.json describes" in err
    assert not list(Path().iterdir())
