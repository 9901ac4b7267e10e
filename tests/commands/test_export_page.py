"""The command `export --to page`: what lies in the folder and in the file."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.bundles import change_description, write_random_bundle
from support.commands import called
from thawnet.bundle.format import read_description, read_onnx
from thawnet.bundle.model import Model, load, softmax
from thawnet.export.page import network
from thawnet.export.page.page import RUNTIME, Page, folder_files, single_file

ATTACK = "</script><img src=x onerror=alert(1)>"


def policy(html: str) -> str:
    (content,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    return str(content)


def page_of(gpu: bool = False, **facts: Any) -> Page:
    assets = {"runtime": b"r", "network": b"n"}
    return Page({"classes": ["a"], "examples": [], **facts}, assets, gpu)


def listed(worker: str, name: str) -> set[str]:
    """Return the paths of a list in the service worker."""
    (parts,) = re.findall(r"^self.thawnet = (.*);", worker)
    return set(json.loads(parts)[name])


def test_folder_holds_everything_it_names(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capfd, "export", bundle, "--to", "page")
    assert status == 0, err
    folder = Path(f"{bundle.name}-page")
    line = rf"{folder}: \d+\.\d MB, of which the model \d\.\d MB before it is packed; (.*)\n"
    match = re.fullmatch(line, out)
    assert match is not None
    assert match[1] == "weights in float32, as the bundle's"  # there are no images to try less on
    assert "untried in float16" in err
    html = (folder / "index.html").read_text(encoding="utf-8")
    for name in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert (folder / name).is_file(), name
    assert "script-src 'self' 'wasm-unsafe-eval'; style-src 'self';" in policy(html)
    assert "unsafe-inline" not in html
    facts = json.loads(re.findall(r'id="facts">(.*)</script>', html)[0])
    assert facts["model"]["classes"] == list(load(bundle).classes)
    assert all((folder / path).is_file() for path in facts["assets"].values())
    weights = load(bundle).class_weights
    assert weights is not None
    halves = np.frombuffer(gzip.decompress((folder / "static/weights.gz").read_bytes()), "<f2")
    assert halves == pytest.approx(weights.ravel(), rel=1e-3, abs=1e-4)
    worker = (folder / "offline.js").read_text()
    later = listed(worker, "later")
    assert later == {"static/ort-gpu.js", "static/runtime-gpu.gz"}
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert listed(worker, "files") == files - later - {"index.html", "offline.js"} | {"./"}


def test_one_file_asks_for_nothing(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = called(capfd, "export", bundle, "--to", "page", "--single-file")
    assert status == 0, err
    html = Path(f"{bundle.name}.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="([^"#][^"]*)"', html)
    assert links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links)
    assert "connect-src 'none'" in policy(html)
    scripts = re.findall(r'<script(?: type="module")?>(.*?)</script>', html, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert (len(scripts), len(styles)) == (8, 3)
    for text in (*scripts, *styles):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy(html)


def test_same_bundle_gives_the_same_bytes(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("export", bundle, "--to", "page", "--single-file", "--out")
    assert [called(capfd, *words, name)[0] for name in ("a.html", "b.html")] == [0, 0]
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_names_are_text() -> None:
    page = page_of(classes=[ATTACK, "é\u2028"], name=ATTACK)
    for html in (folder_files(page)["index.html"].decode(), single_file(page).decode()):
        assert ATTACK not in html
        facts = json.loads(re.findall(r'id="facts">(.*)</script>', html)[0])
        assert facts["model"]["classes"] == [ATTACK, "é\u2028"]


def test_licence_of_the_runtime_goes_with_it() -> None:
    files = folder_files(page_of(gpu=True))
    for content in (files["static/ort.js"], files["static/ort-gpu.js"], single_file(page_of())):
        assert b"Copyright (c) Microsoft Corporation" in content
        assert b"The above copyright notice and this permission notice" in content
    assert all(path.stat().st_size < 3e6 for path in RUNTIME.iterdir())


def test_what_only_a_graphics_card_needs_is_where_it_can_be_used() -> None:
    with_card, without = folder_files(page_of(gpu=True)), folder_files(page_of())
    files = {"static/gpu.js", "static/ort-gpu.js", "static/runtime-gpu.gz"}
    assert set(with_card) - set(without) == files
    assert listed(without["offline.js"].decode(), "later") == set()
    assert b"gpu" not in without["index.html"]
    assert single_file(page_of(gpu=True)) == single_file(page_of())


def test_weights_are_rounded_only_where_no_validation_image_notices(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nearly all of a MobileNetV2 are weights.
    bundle = write_random_bundle(tmp_path / "bundle", "mobilenetv2_100", "same")
    description, model = read_description(bundle), load(bundle)
    onnx = read_onnx(description)
    squares = np.random.default_rng(0).integers(0, 256, (70, 40, 40, 3), np.uint8)
    small, comparison = network.page_network(description, onnx, model, lambda: squares)
    assert len(small) < 0.6 * len(onnx)
    rounded = Model(description, small)
    exact, shares = (softmax(each.all_logits(squares) / 2) for each in (model, rounded))
    off = np.abs(shares - exact).max()
    assert 0 < off <= network.MOST_OFF
    assert f"by up to {off:.1e} on 70 validation images" in comparison
    monkeypatch.setattr(network, "MOST_OFF", 0.0)
    whole = network.page_network(description, onnx, model, lambda: squares)
    assert whole == (onnx, "weights in float32, as the bundle's")
    assert "the page's weights stay in float32" in capfd.readouterr().err


def test_quantised_network_goes_as_it_is(bundle: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(bundle, tmp_path / "int8")
    description = read_description(copied)
    del description.sha256["model.safetensors"]
    architecture = replace(description.architecture, class_weights=None)
    change_description(copied, sha256=description.sha256, architecture=asdict(architecture))
    onnx = read_onnx(description)
    whole = network.page_network(description, onnx, load(copied), lambda: None)
    assert whole == (onnx, "in int8, as the bundle")
