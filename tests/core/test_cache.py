"""Cache entries that grow over several attempts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from thawnet.core import cache
from thawnet.core.cache import ABANDONED, Building, Pace, building, clear_cache, remove
from thawnet.core.errors import DataError, RunError
from thawnet.core.files import cache_folder


@pytest.fixture
def entry() -> Path:
    return cache_folder() / "stores" / "abc"


def part_of(entry: Path) -> Path:
    return entry.parent / f".{entry.name}.part"


def nobody(text: str) -> None:
    pytest.fail(f"told to wait: {text}")


def began(work: Building | None) -> Building:
    assert work is not None
    return work


def interrupted(entry: Path, error: BaseException, note: object = None) -> None:
    """Begin an entry, note something, and end with an error."""
    with building(entry, nobody) as work, began(work).open("values") as file:
        file.write(b"half")
        if note is not None:
            began(work).keep(note, file)
        raise error


def test_entry_appears_whole_and_without_what_built_it(entry: Path) -> None:
    with building(entry, nobody) as work, began(work).open("values") as file:
        file.write(b"whole")
        began(work).keep(1, file)
        assert not entry.exists()
    assert [path.name for path in entry.parent.iterdir()] == ["abc"]
    assert [path.name for path in entry.iterdir()] == ["values"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RunError("x"), ValueError("x")])
def test_noted_work_stays_when_an_error_stops_it(entry: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        interrupted(entry, error, {"at": 4})
    leftover = part_of(entry) / "..note-0.json.x1.tmp"  # of a process killed while it noted
    leftover.touch()
    with building(entry, nobody) as work, began(work).open("values") as file:
        assert began(work).notes() == [{"at": 4}]
        assert file.read() == b"half"
        assert not leftover.exists()
    assert entry.is_dir()


def test_work_that_nobody_noted_is_not_left(entry: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(entry, KeyboardInterrupt())
    assert list(entry.parent.iterdir()) == []
    part_of(entry).mkdir(parents=True)
    (part_of(entry) / "values").write_bytes(b"of a process killed before its first note")
    with building(entry, nobody) as work:
        assert list(began(work).folder.iterdir()) == []


def test_entry_that_an_error_in_the_data_judged_is_removed(entry: Path) -> None:
    with pytest.raises(DataError):
        interrupted(entry, DataError("x"), {"at": 4})
    assert list(entry.parent.iterdir()) == []


def test_each_member_of_a_team_notes_for_itself_until_one_speaks_for_all(entry: Path) -> None:
    def stopped() -> None:
        with building(entry, nobody) as work:
            began(work).keep("first")
            Building(began(work).folder, 1).keep("second")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with building(entry, nobody) as work:
        assert began(work).notes() == ["first", "second"]
        began(work).replace_notes("both")
        assert began(work).notes() == ["both"]


def test_entry_that_is_being_built_is_neither_removed_nor_swept(entry: Path) -> None:
    told: list[str] = []
    other = entry.parent / "other"
    with building(entry, nobody) as work:
        part = began(work).folder
        began(work).keep(1)
        for path in (part, *part.iterdir()):
            os.utime(path, (0, 0))
        assert not remove(part)
        with building(other, nobody):
            pass
        assert clear_cache(told.append) == 0
        assert part.is_dir()
        assert not other.exists()
    assert told == [f"{part} stays: another process is building it"]
    assert remove(entry)
    assert list(entry.parent.iterdir()) == []


def test_removal_that_is_stopped_leaves_no_entry_that_looks_whole(
    entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with building(entry, nobody) as work:
        for name in ("1", "2"):
            (began(work).folder / name).touch()

    def stop(folder: Path) -> None:
        (folder / "1").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.shutil, "rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            remove(entry)
    assert not entry.is_dir()
    with building(entry, nobody) as work:  # anew, from nothing
        assert list(began(work).folder.iterdir()) == []
    assert remove(entry)
    assert list(entry.parent.iterdir()) == []


def test_unfinished_entries_forgotten_for_a_week_are_swept_but_ones_own_goes_on(
    entry: Path,
) -> None:
    for name in ("abc", "forgotten", "fresh"):
        with pytest.raises(KeyboardInterrupt):
            interrupted(entry.parent / name, KeyboardInterrupt(), name)
    old = time.time() - ABANDONED - 60
    for part in (part_of(entry), part_of(entry.parent / "forgotten")):
        for path in (*part.iterdir(), part):
            os.utime(path, (old, old))
    with building(entry, nobody) as work:
        assert began(work).notes() == ["abc"]
    left = {path.name for path in entry.parent.iterdir()}
    assert left == {"abc", ".fresh.part", ".fresh.lock"}


def test_note_of_removed_files_is_not_written(entry: Path) -> None:
    def removed() -> None:
        with building(entry, nobody) as work, began(work).open("values") as file:
            (began(work).folder / "values").unlink()
            began(work).keep(1, file)

    with pytest.raises(RunError, match=rf"^{entry}: the folder is gone; put it back, or choose"):
        removed()
    assert list(entry.parent.iterdir()) == []


@pytest.mark.parametrize("chosen", ["soon", "-1", "inf", "nan", ""])
def test_wrong_pace_is_one_sentence(
    entry: Path, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAWNET_KEEP_SECONDS", chosen)
    told = rf"^THAWNET_KEEP_SECONDS='{chosen}': must be a number of seconds, 0 or more$"
    with pytest.raises(RunError, match=told), building(entry, nobody):
        pass


@pytest.mark.parametrize(
    ("chosen", "due"),
    [(None, [False, True, False]), ("0", [True, True, True]), ("3600", [False, False, False])],
)
def test_work_is_kept_every_twenty_seconds_or_as_often_as_asked(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, due: list[bool]
) -> None:
    monkeypatch.delenv("THAWNET_KEEP_SECONDS", raising=False)
    if chosen is not None:
        monkeypatch.setenv("THAWNET_KEEP_SECONDS", chosen)
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace()
    answers = []
    for now[0] in (119.9, 120.0, 139.9):
        answers.append(pace.due())
        if answers[-1]:
            pace.restart()
    assert answers == due
