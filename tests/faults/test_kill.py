"""Killed at any moment and started again: the same bytes, and nothing noted is done twice."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from support.awaiting import wait_until
from support.entries import content, noted
from support.patches import calls_of
from thawnet.core.cache import locked
from thawnet.core.files import cache_folder
from thawnet.data import store
from thawnet.data.items import unwatched
from thawnet.data.sources import archives
from thawnet.data.sources.open import open_source
from thawnet.image.preprocess import Reduction

Photos = Callable[..., Path]

# Both leave a mark for each piece they do, take their time, and stand still while `hold` exists.
SLOW_STORE = """
import os, sys, time
from thawnet.data import store
from thawnet.data.sources.open import open_source
from thawnet.image.preprocess import Reduction

def slowly(*words, decode=store.decode):
    with open("done", "a") as marks:
        marks.write("x")
    while os.path.exists("hold"):
        time.sleep(0.01)
    time.sleep(float(sys.argv[2]))
    return decode(*words)

store.decode = slowly
source = open_source(sys.argv[1])
tell = lambda text: print(text, file=sys.stderr)
store.open_store(source.open_part("train"), Reduction(40), lambda done: None, 1, tell)
"""
SLOW_UNPACKING = """
import os, sys, time
from thawnet import cli
from thawnet.data.sources.entries import Entry

def slowly(entry, blocks=Entry.blocks):
    with open("done", "a") as marks:
        marks.write("x")
    for block in blocks(entry):
        for start in range(0, len(block), 1024):
            while os.path.exists("hold"):
                time.sleep(0.01)
            time.sleep(float(sys.argv[2]))
            yield block[start : start + 1024]

Entry.blocks = slowly
sys.exit(cli.main(["inspect", sys.argv[1]]))
"""
FILES = 24


def mixed(photos: Photos) -> Path:
    """Write photos of several shapes, some of them broken."""
    folder = photos({"a": 60, "b": 40})
    (folder / "a" / "001.png").write_bytes(b"")
    (folder / "b" / "030.png").write_text("no picture")
    Image.open(folder / "b" / "005.png").resize((80, 40)).save(folder / "b" / "005.png")
    return folder


def packed(photos: Photos, tmp_path: Path, kind: str) -> Path:
    """Pack photos that are read in several blocks each."""
    folder = photos({"a": FILES // 2, "b": FILES // 2})
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
            for path in sorted(folder.rglob("*.png")):
                file.write(path, path.relative_to(folder))
        return tmp_path / "x.zip"
    return Path(shutil.make_archive(str(tmp_path / "x"), "gztar", folder))


def entry(kind: str) -> dict[str, bytes]:
    """Return every file of the one entry of a kind."""
    (folder,) = (cache_folder() / kind).iterdir()  # neither part nor lock is left
    return content(folder)


def kill_after_a_note(code: str, kind: str, data: Path) -> int:
    """Start a process, kill it once it noted more than is noted now, and return what it noted."""
    before = noted(kind)
    process = subprocess.Popen([sys.executable, "-c", code, data, "0.04"])
    wait_until(lambda: noted(kind) > before or process.poll() is not None, pause=0.005)
    process.kill()
    assert process.wait() == -9
    return noted(kind)


def test_store_of_a_killed_process_is_finished_with_the_same_bytes(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = mixed(photos)
    monkeypatch.setenv("THAWNET_KEEP_SECONDS", "0")
    first = kill_after_a_note(SLOW_STORE, "stores", folder)
    second = kill_after_a_note(SLOW_STORE, "stores", folder)
    assert 0 < first < second < 100
    source = open_source(str(folder))
    items = source.open_part("train")
    decoded = calls_of(monkeypatch, store, "decode")
    store.open_store(items, Reduction(40), lambda done: None, 1)
    assert len(decoded) == 100 - second
    found = entry("stores")
    assert set(found) == {"pixels.bin", "shapes.npy", "meta.json"}
    monkeypatch.setenv("THAWNET_CACHE", str(tmp_path / "uninterrupted"))
    store.open_store(items, Reduction(40), lambda done: None, 2)
    assert entry("stores") == found


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_of_a_killed_process_is_unpacked_on(
    kind: str, photos: Photos, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = packed(photos, tmp_path, kind)
    monkeypatch.setenv("THAWNET_KEEP_SECONDS", "0")
    first = kill_after_a_note(SLOW_UNPACKING, "archives", path)
    second = kill_after_a_note(SLOW_UNPACKING, "archives", path)
    assert 0 < first < second < FILES
    written = calls_of(monkeypatch, archives, "_write")
    archives.unpack(path, unwatched, lambda text: None)
    assert len(written) == FILES - second
    assert entry("archives") == content(tmp_path / "photos")


@pytest.mark.parametrize("kind", ["stores", "archives"])
def test_of_two_processes_at_once_one_works_and_the_other_says_that_it_waits(
    kind: str, photos: Photos, tmp_path: Path
) -> None:
    if kind == "stores":
        code, data, pieces = SLOW_STORE, photos({"a": 50, "b": 50}), 100
    else:
        code, data, pieces = SLOW_UNPACKING, packed(photos, tmp_path, "zip"), FILES
    hold, logs = Path("hold"), [Path("log-1"), Path("log-2")]
    hold.touch()
    running = []
    for log in logs:
        with log.open("w") as file:
            command = [sys.executable, "-c", code, data, "0"]
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file))
    wait_until(lambda: any("waiting" in log.read_text() for log in logs))
    hold.unlink()
    for process in running:
        process.wait(timeout=60)
    silent, waiting = sorted(log.read_text() for log in logs)
    assert [process.returncode for process in running] == [0, 0]
    assert silent == ""
    assert waiting.startswith(f"another process is building {cache_folder() / kind}")
    assert waiting.count("\n") == 1
    assert Path("done").read_text() == "x" * pieces
    assert entry(kind)


def test_training_says_that_it_waits_for_the_store(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    from thawnet.training.parts import open_images

    source = open_source(str(photos({"a": 2, "b": 2})))
    items = source.open_part("train")
    path = store.store_folder(items, Reduction(40))
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(path, "building", pytest.fail):
            held.set()
            free.wait(1.3)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    open_images("train", items, Reduction(40), 1)
    holder.join()
    assert capsys.readouterr().err == f"another process is building {path}; waiting for it\n"
