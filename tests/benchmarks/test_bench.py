"""`make bench`: which rows are done, what is kept of them, and the page that is made of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import bench
import page
import rows
from inputs import write_classes, write_digits, write_keras_weights, write_photos
from runs import ROOT, caches
from support.benchmark_rows import cpu_rows, trial
from support.shared import CIFAR, IMAGENET, SHARED
from thawnet.core.files import write_json
from thawnet.model.keras_layers import keras_layers
from thawnet.recipe import PRESETS, load_recipe


def keep(folder: Path, kind: str, row: str, figures: Any, gpu: str | None = None) -> None:
    """Write a row's file."""
    record = {
        "date": "2026-01-01T00:00:00+00:00",
        "commit": "0123456789ab",
        "source": "0123",
        "machine": {"processor": "a processor", "cores": 2, "gpu": gpu},
        "versions": {"torch": "2.15.0"},
        "commands": ["python -m thawnet train cifar100"],
        "figures": figures,
    }
    write_json(folder / "results" / kind / f"{row}.json", record)


def test_all_rows_are_done_or_those_that_are_named() -> None:
    assert bench.choose(rows.CPU, ()) == list(rows.CPU)
    assert [row.name for row in bench.choose(rows.CPU, ("timm", "share"))] == ["timm", "share"]
    with pytest.raises(SystemExit, match=r"no row 'quik'; there are quick, trunk"):
        bench.choose(rows.CPU, ("quik",))


def test_what_ten_minutes_of_a_gpu_are_for_comes_first() -> None:
    minutes = {row.name: row.minutes for row in rows.GPU}
    assert max(minutes.values()) < 10
    assert list(minutes)[:5] == ["tests", "full-0", "full-1", "full-2", "share"]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "recipes").iterdir()), ids=str)
def test_a_recipe_that_is_no_preset_yet_can_be_read(path: Path) -> None:
    assert load_recipe(str(path)).name == path.stem
    assert path.stem not in PRESETS


def test_a_row_is_done_again_from_another_source_or_on_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (row,) = bench.choose(rows.CPU, ("keras",))
    assert (ROOT / row.source).is_dir()
    record = bench.circumstances(row)
    assert bench.is_done(row, record)
    assert not bench.is_done(row, None)
    assert not bench.is_done(row, {**record, "machine": {}})
    monkeypatch.setattr(bench, "source", lambda folder: folder.name)
    assert not bench.is_done(row, record)


def test_the_source_is_what_its_files_hold(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "recipe.toml").write_text("epochs = 1")
    before = bench.source(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing that a run reads")
    assert bench.source(tmp_path) == before
    (tmp_path / "a" / "recipe.toml").write_text("epochs = 2")
    assert bench.source(tmp_path) != before


def test_rows_keep_compiled_code_and_decoded_images_but_no_features(tmp_path: Path) -> None:
    first, second = (caches(tmp_path / name, tmp_path / "kept") for name in "ab")
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert first[name] == second[name]
    stores = Path(first["THAWNET_CACHE"], "stores")
    (stores / "decoded").touch()
    assert Path(second["THAWNET_CACHE"], "stores", "decoded").exists()
    Path(first["THAWNET_CACHE"], "features").mkdir()
    assert not Path(second["THAWNET_CACHE"], "features").exists()


def test_the_page_holds_every_row_and_every_run(tmp_path: Path) -> None:
    measured = cpu_rows()
    for name, figures in measured.items():
        keep(tmp_path, "cpu", name, figures)
    page.write(tmp_path)
    with Image.open(tmp_path / "accuracy.png") as picture:
        assert picture.size == (1800, 930)
    keep(tmp_path, "gpu", "quick-0", {"run": trial((20, 0.72))}, "a GPU")
    page.write(tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    for name in measured:
        assert f"\n## {name}\n" in text
    assert "\n## quick-0, GPU\n" in text
    assert "## 2 cores of a processor\n" in text
    assert "## a GPU\n" in text
    assert "| test accuracy of `full` | 80.00 % |" in text
    assert "    python -m thawnet train cifar100\n" in text
    with Image.open(tmp_path / "accuracy.png") as picture:
        assert picture.size == (1800, 1425)  # with a panel for the GPU


def test_a_page_without_rows_has_no_table_and_no_picture(tmp_path: Path) -> None:
    page.write(tmp_path)
    assert (tmp_path / "RESULTS.md").read_text().strip() == page.HEAD.strip()
    assert not (tmp_path / "accuracy.png").exists()


def test_the_page_in_the_checkout_is_what_its_results_give(tmp_path: Path) -> None:
    kept = ROOT / "benchmarks"
    (tmp_path / "results").symlink_to(kept / "results")
    page.write(tmp_path)
    assert (tmp_path / "RESULTS.md").read_text() == (kept / "RESULTS.md").read_text()


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


@pytest.mark.skipif(not CIFAR.is_dir(), reason=f"needs {SHARED}")
def test_photos_of_a_benchmark_have_a_size_and_none_is_like_another(tmp_path: Path) -> None:
    files = sorted(write_photos(CIFAR, tmp_path / "photos", 400, (40, 30)).iterdir())
    assert len({file.read_bytes() for file in files}) == 400
    with Image.open(files[-1]) as photo:
        photo.load()
        assert photo.size == (40, 30)


def test_digits_lie_in_folders_of_their_own_for_both_parts(tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "digits")
    counts = {
        part: [len(list(own.iterdir())) for own in sorted((folder / part).iterdir())]
        for part in ("train", "test")
    }
    assert {part: (len(each), sum(each)) for part, each in counts.items()} == {
        "train": (10, 1617),
        "test": (10, 180),
    }
    with Image.open(next((folder / "test" / "0").iterdir())) as digit:
        assert np.asarray(digit).max() > 200  # of 255, where scikit-learn has 16
        assert digit.size == (8, 8)


@pytest.mark.skipif(not CIFAR.is_dir(), reason=f"needs {SHARED}")
def test_classes_of_cifar_are_among_more_of_them(tmp_path: Path) -> None:
    few, more = (write_classes(CIFAR, tmp_path / str(each), each) for each in (2, 3))
    drawn = [{path.read_bytes() for path in folder.glob("train/*/*.png")} for folder in (few, more)]
    assert [len(files) for files in drawn] == [200, 300]
    assert drawn[0] < drawn[1]
    assert len(list(few.glob("test/*/*.png"))) == 10_000


def test_constraints_add_to_the_projects_own() -> None:
    own, added = (
        dict(re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(), re.MULTILINE))
        for path in (ROOT / "constraints.txt", ROOT / "benchmarks" / "constraints.txt")
    )
    assert set(own) & set(added) == {"h5py"}  # which the Makefile takes out
    lines = (ROOT / "benchmarks" / "constraints.txt").read_text().splitlines()
    assert all("==" in line or line.startswith("#") for line in lines)


def rehearsed(*words: str) -> subprocess.CompletedProcess[str]:
    """Rehearse rows, which write to build/bench: one call after the other."""
    script = str(ROOT / "benchmarks" / "bench.py")
    return subprocess.run(
        [sys.executable, script, "--rehearse", "--shared", str(SHARED), *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(not (CIFAR.is_dir() and IMAGENET.is_file()), reason=f"needs {SHARED}")
def test_rows_can_be_rehearsed_and_cut_short() -> None:
    page = ROOT / "build" / "bench" / "rehearsal" / "RESULTS.md"
    gpu = ("--gpu", "--seconds", "900", "--rows", "tests", "timm")
    for words in (("--rows", "trunk", "share"), gpu):
        done = rehearsed(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        for row in words[words.index("--rows") + 1 :]:
            assert f"\n## {row}" in page.read_text()
    done = rehearsed("--gpu", "--seconds", "2", "--rows", "best-0", "tests")
    assert done.returncode == 1
    assert "\nnot measured: best-0: the time is up\n" in done.stdout
    assert "\nnot measured: tests, for which 0 s are too few\n" in done.stdout
    assert "##" not in page.read_text()
