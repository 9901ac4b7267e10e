"""A disk that is full, read-only or pulled away: one line, and nothing that was whole is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.entries import content, noted
from support.patches import calls_of
from support.systems import LINUX
from thawnet import cli
from thawnet.core.errors import RunError
from thawnet.core.files import cache_entries, cache_folder, clear_disk_errors, write_json
from thawnet.data import store
from thawnet.data.sources import archives
from thawnet.data.sources.arrays import from_arrays
from thawnet.data.sources.open import open_source
from thawnet.data.store import ImageStore, open_store
from thawnet.image.preprocess import Reduction
from thawnet.recipe import TrainOptions, load_recipe
from thawnet.training import checkpoint, run
from thawnet.training.checkpoint import RunState
from thawnet.training.machine import Machine

Photos = Callable[..., Path]
FULL = r"^\S+: the disk is full; free some space and start again$"
GONE = r"^\S+: the folder is gone; put it back, or choose another"
READ_ONLY = r"^\S+: it cannot be written; choose another folder with --out or THAWNET_CACHE$"


class Disk:
    """A small disk of its own, mounted on a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self, options: str, *more: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, *more, "tmpfs", str(self.path)]
        subprocess.run(command, check=True, capture_output=True)

    def change(self, options: str) -> None:
        self.set(f"remount,{options}")

    def fill(self) -> Path:
        """Take all that is free, and return the file that takes it."""
        filler = self.path / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(self.path).free))
        return filler


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Mount a disk of 512 KiB, and let the cache lie on it."""
    small = Disk(tmp_path / "disk")
    small.path.mkdir()
    try:
        small.set("size=512k")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small disk can be mounted: run as root, or under `unshare -Urm`")
    monkeypatch.setenv("THAWNET_CACHE", str(small.path / "cache"))
    monkeypatch.setenv("THAWNET_KEEP_SECONDS", "0")
    yield small
    subprocess.run(["umount", "--lazy", str(small.path)], check=True)


def store_of(folder: Path, progress: Callable[[int], None] = lambda done: None) -> ImageStore:
    source = open_source(str(folder))
    return open_store(source.open_part("train"), Reduction(40), progress, 1)


def archive(tmp_path: Path, count: int = 40) -> Path:
    path = tmp_path / "photos.zip"
    rng = np.random.default_rng(1)
    with zipfile.ZipFile(path, "w") as file:
        for number in range(count):
            file.writestr(f"{number % 2}/{number}.bin", rng.bytes(5000))
    return path


def unpack(path: Path, each: Callable[[int], None] = lambda done: None) -> Path:
    @contextmanager
    def watch(_title: str, _count: int) -> Iterator[Callable[[int], None]]:
        yield each

    return archives.unpack(path, watch, lambda text: None)


@contextmanager
def another_cache(path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THAWNET_CACHE", str(path))
        yield


def test_store_goes_on_when_a_full_disk_has_room_again(
    disk: Disk, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store_of(photos({"a": 2, "b": 2}, "few"))
    folder = photos({"a": 90, "b": 90})
    with pytest.raises(RunError, match=FULL):
        store_of(folder)
    again = store_of(tmp_path / "few")
    assert (again.pixels == before.pixels).all()
    done = noted("stores")
    assert done > 50
    disk.change("size=4m")
    decoded = calls_of(monkeypatch, store, "decode")
    resumed = store_of(folder)
    assert len(decoded) == 180 - done
    with another_cache(tmp_path / "roomy"):
        whole = store_of(folder)
        expected = {path.name: content(path) for path, _ in cache_entries()}
    assert resumed.fingerprint == whole.fingerprint
    assert expected.items() <= {path.name: content(path) for path, _ in cache_entries()}.items()


def test_unpacking_goes_on_when_a_full_disk_has_room_again(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path)
    fillers: list[Path] = []

    def fill_at_the_tenth(_done: int) -> None:
        fillers.append(disk.fill() if len(fillers) == 9 else disk.path)

    with pytest.raises(RunError, match=FULL):
        unpack(path, fill_at_the_tenth)
    done = noted("archives")
    assert done >= 9
    (disk.path / "filler").unlink()
    written = calls_of(monkeypatch, archives, "_write")
    resumed = content(unpack(path))
    assert len(written) == 40 - done
    with another_cache(tmp_path / "roomy"):
        assert resumed == content(unpack(path))
    assert len(resumed) == 40


@pytest.mark.parametrize("room", [0, 40_000, 200_000])
def test_a_checkpoint_that_fills_a_disk_is_one_sentence_wherever_its_writer_is(
    disk: Disk, room: int
) -> None:
    machine = Machine("cpu", "float32", 1, "no")
    state = RunState(TrainOptions("photos"), load_recipe("quick"), machine, {}, 1)
    state.network = {"weight": torch.zeros(500_000 // 4)}
    filler = disk.fill()
    os.truncate(filler, filler.stat().st_size - room)
    with pytest.raises(RunError, match=FULL):
        checkpoint.save(state, disk.path)
    assert not list(disk.path.glob("checkpoint/.*.tmp"))


@LINUX
def test_results_that_stdout_does_not_take_end_in_one_sentence() -> None:
    command = [sys.executable, "-m", "thawnet", "cache", "list"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("thawnet: results cannot be written to stdout: No space left")
    assert done.stderr.count("\n") == 1


def test_predictions_until_the_disk_was_full_are_kept(
    disk: Disk, photos: Photos, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 40})
    disk.change("size=8k")  # two pages; the results take more
    out = disk.path / "all.jsonl"
    call = ["predict", str(folder), "--model", str(bundle), "--json", "--out", str(out)]
    assert cli.main(call) == 1
    part = disk.path / "all.jsonl.part"
    assert capfd.readouterr().err.endswith(
        f"results until here {part}; its last line may be cut\n"
        f"thawnet: {out}: the disk is full; free some space and start again\n"
    )
    assert list(disk.path.iterdir()) == [part]
    lines = part.read_text().splitlines()
    disk.change("size=512k")
    assert cli.main(call) == 0
    assert out.read_text().splitlines()[: len(lines) - 1] == lines[:-1]
    assert len(lines) > 10


def test_run_on_a_full_disk_says_how_it_is_resumed(
    disk: Disk, options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = disk.fill()
    with pytest.raises(RunError, match=r"start again: thawnet train --resume runs/photos-quick-1$"):
        run.train(options)
    filler.unlink()
    disk.change("size=64m")

    def full(*_: object) -> None:
        disk.fill()
        with clear_disk_errors(disk.path):
            (disk.path / "another").write_bytes(b"one byte more")

    with monkeypatch.context() as patch:
        patch.setattr(run, "finish", full)
        with pytest.raises(RunError, match=r"again: thawnet train --resume runs/photos-quick-1$"):
            run.train(TrainOptions(resume="runs/photos-quick-1"))
        (disk.path / "filler").unlink()
        images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
        source = from_arrays(images, np.arange(60) % 2, ["a", "b"], mirror_safe=True)
        with pytest.raises(RunError, match=FULL):  # its images are in memory
            run.train(replace(options, no_test=True), source)
        (disk.path / "filler").unlink()
    done = run.train(TrainOptions(resume="runs/photos-quick-1"))
    assert done.line.startswith("test accuracy")


def test_read_only_disk_is_one_line_and_what_is_there_is_used(
    disk: Disk, photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = store_of(photos({"a": 2, "b": 2}, "few"))
    other, packed = photos({"a": 3, "b": 3}), archive(tmp_path)
    disk.change("ro")
    assert store_of(tmp_path / "few").fingerprint == there.fingerprint
    for refused in (
        lambda: store_of(other),
        lambda: unpack(packed),
        lambda: write_json(disk.path / "a.json", 1),
    ):
        with pytest.raises(RunError, match=READ_ONLY):
            refused()
    assert cli.main(["cache", "clear"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    disk.change("rw")
    assert len(store_of(other)) == 6


@pytest.mark.parametrize("seconds", ["0", "3600"])
def test_cache_that_vanishes_while_a_store_is_built_is_one_line(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    monkeypatch.setenv("THAWNET_KEEP_SECONDS", seconds)
    folder = photos({"a": 20, "b": 20})
    with pytest.raises(RunError, match=GONE):
        store_of(folder, lambda done: done and shutil.rmtree(cache_folder(), ignore_errors=True))
    assert cache_entries() == []
    assert len(store_of(folder)) == 40


@pytest.mark.parametrize(
    ("seconds", "message"), [("0", GONE), ("3600", r"10 of the 40 files of '.*' were removed from")]
)
def test_cache_that_vanishes_while_an_archive_is_unpacked_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: str, message: str
) -> None:
    monkeypatch.setenv("THAWNET_KEEP_SECONDS", seconds)
    path = archive(tmp_path)
    seen: list[int] = []

    def remove_at_the_tenth(done: int) -> None:
        seen.append(done)
        if len(seen) == 10:
            shutil.rmtree(cache_folder())

    with pytest.raises(RunError, match=message):
        unpack(path, remove_at_the_tenth)
    assert cache_entries() == []
    assert len(content(unpack(path))) == 40
