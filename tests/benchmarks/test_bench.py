"""`make bench`: which rows are done, what is kept of them, and the page that is made of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import bench
import gpu
import records
import report
import rows
from support.benchmark_rows import cpu_rows, record, trial
from support.shared import CIFAR, IMAGENET, SHARED
from thawnet.model.keras_layers import keras_layers
from trials import ROOT
from workbench import REHEARSAL, WHOLE, Pieces, write_keras_weights

KNOWN = (*rows.ROWS, *gpu.ROWS)


def test_all_rows_are_done_but_those_to_be_asked_for() -> None:
    names = [row.name for row in bench.choose(rows.ROWS, ())]
    assert "quick" in names
    assert "timm-whole" not in names
    assert [row.name for row in bench.choose(rows.ROWS, ("timm-whole", "share"))] == [
        "timm-whole",
        "share",
    ]


def test_a_row_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match=r"no row 'quik'; there are quick, trunk"):
        bench.choose(rows.ROWS, ("quik",))


def test_a_gpu_row_takes_less_than_nine_minutes_by_its_own_estimate() -> None:
    assert all(row.minutes < 9 for row in gpu.ROWS)


def test_every_row_has_a_folder_that_decides_it() -> None:
    for row in KNOWN:
        assert (ROOT / row.depends).is_dir()


def test_a_row_is_reused_only_from_the_same_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content: dict[str, str | None] = {"src": "one", "benchmarks/rivals": "two"}
    monkeypatch.setattr(records, "source", content.__getitem__)
    path = tmp_path / "finished.json"
    records.Finished(path).add("cpu/quick", "one")
    records.Finished(path).add("cpu/keras", "two")
    finished = records.Finished(path)
    assert finished.holds("cpu/quick", "src")
    assert not finished.holds("cpu/trunk", "src")
    content["src"] = "changed"
    assert not finished.holds("cpu/quick", "src")
    assert finished.holds("cpu/keras", "benchmarks/rivals")
    content["src"] = None  # not committed
    finished.add("cpu/quick", None)
    assert not finished.holds("cpu/quick", "src")


def test_the_page_holds_every_row_and_every_run(tmp_path: Path) -> None:
    for name, kept in cpu_rows().items():
        records.keep(tmp_path / "results", "cpu", name, kept)
    on_gpu = record({"run": trial((20, 0.72))})
    on_gpu["machine"]["gpu"] = "a GPU"
    report.write(tmp_path)
    with Image.open(tmp_path / "accuracy.png") as picture:
        assert picture.size == (1800, 930)
    records.keep(tmp_path / "results", "gpu", "quick-0", on_gpu)
    report.write(tmp_path)
    page = (tmp_path / "RESULTS.md").read_text()
    for name in cpu_rows():
        assert f"\n## {name}\n" in page
    assert "\n## quick-0, GPU\n" in page
    assert "## 2 cores of a processor\n" in page
    assert "## a GPU\n" in page
    assert "| test accuracy of `full` | 80.00 % |" in page
    assert "    python -m thawnet train cifar100\n" in page
    with Image.open(tmp_path / "accuracy.png") as picture:
        assert picture.size == (1800, 1425)  # with a panel for the GPU


def test_a_page_without_rows_has_no_table_and_no_picture(tmp_path: Path) -> None:
    report.write(tmp_path)
    assert (tmp_path / "RESULTS.md").read_text().strip() == report.HEAD.strip()
    assert not (tmp_path / "accuracy.png").exists()


def test_the_page_in_the_checkout_is_what_its_results_give(tmp_path: Path) -> None:
    kept = ROOT / "benchmarks"
    (tmp_path / "results").symlink_to(kept / "results")
    report.write(tmp_path)
    assert (tmp_path / "RESULTS.md").read_text() == (kept / "RESULTS.md").read_text()


def test_time_left_follows_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("workbench.time.monotonic", lambda: now[0])
    pieces = Pieces("trunk", [("first", 2.0), ("second", 4.0)])
    pieces.next()
    now[0] = 60.0  # half of what was expected
    pieces.next()
    assert capsys.readouterr().out.splitlines() == [
        "trunk 1/2: first (about 6 min left)",
        "trunk 2/2: second (about 2 min left)",
    ]


def test_a_rehearsal_does_less_of_everything() -> None:
    assert REHEARSAL.short
    assert not WHOLE.short
    for name in ("pairs", "trunk_pairs", "share_pairs", "steps", "seconds", "share_images"):
        assert getattr(REHEARSAL, name) < getattr(WHOLE, name)


def test_keras_gets_each_layers_weights_in_its_own_order(tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray] = {}
    for number, (keras, timm) in enumerate(keras_layers()):
        if timm is None:
            continue
        if "bn" in keras.lower():
            for place, part in enumerate(("weight", "bias", "running_mean", "running_var")):
                tensors[f"{timm}.{part}"] = np.full(8, number + place / 4, np.float32)
        else:
            inputs = 1 if "depthwise" in keras else 4
            tensors[f"{timm}.weight"] = np.arange(8 * inputs * 6, dtype=np.float32).reshape(
                8, inputs, 2, 3
            )
    save_file(tensors, tmp_path / "timm.safetensors", {"bn_eps": "1e-05"})
    write_keras_weights(tmp_path / "timm.safetensors", tmp_path / "keras.npz")
    with np.load(tmp_path / "keras.npz") as values:
        assert values["epsilon"] == 1e-5
        assert values["Conv1/0"].shape == (2, 3, 4, 8)
        assert values["Conv1/0"][1, 2, 3, 7] == tensors["conv_stem.weight"][7, 3, 1, 2]
        assert values["block_1_depthwise/0"].shape == (2, 3, 8, 1)
        gamma, beta, mean, variance = (values[f"bn_Conv1/{place}"][0] for place in range(4))
        assert (beta - gamma, mean - beta, variance - mean) == (0.25, 0.25, 0.25)


def test_constraints_add_to_the_projects_own() -> None:
    own, added = (
        dict(re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(), re.MULTILINE))
        for path in (ROOT / "constraints.txt", ROOT / "benchmarks" / "constraints.txt")
    )
    assert set(own) & set(added) == {"h5py"}  # which the Makefile takes out
    lines = (ROOT / "benchmarks" / "constraints.txt").read_text().splitlines()
    assert all("==" in line or line.startswith("#") for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(not (CIFAR.is_dir() and IMAGENET.is_file()), reason=f"needs {SHARED}")
@pytest.mark.parametrize("words", [("--rows", "trunk", "share"), ("--gpu", "--rows", "seed")])
def test_rows_can_be_rehearsed(words: tuple[str, ...]) -> None:
    script = str(ROOT / "benchmarks" / "bench.py")
    done = subprocess.run(
        [sys.executable, script, "--rehearse", "--shared", str(SHARED), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (ROOT / "build" / "bench" / "rehearsal" / "RESULTS.md").read_text()
    for row in words[words.index("--rows") + 1 :]:
        assert f"\n## {row}" in page
