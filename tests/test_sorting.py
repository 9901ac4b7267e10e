"""Photos sorted by `predict --sort-into`: none is lost, none overwritten, and the result trains."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from support.bundles import COLOURS
from support.commands import called
from thawnet.core.errors import UsageError
from thawnet.data.sources.open import open_source
from thawnet.sorting import check_folder_names

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(colours: Path, capfd: pytest.CaptureFixture[str]) -> Call:
    """Return a function that sorts with the bundle that knows colours."""
    return lambda *words: called(
        capfd, "predict", *words, "--model", colours, "--sort-into", "sorted"
    )


@pytest.fixture
def heap(tmp_path: Path) -> Path:
    """Return a heap of two red and two green photos, one of no colour, and one that is broken."""
    folder = tmp_path / "heap"
    for name, colour in (
        ("a.png", COLOURS["red"]),
        ("later/a.png", (190, 40, 35)),  # another one of the same name
        ("b.png", COLOURS["green"]),
        ("c.png", (5, 190, 5)),  # not the same one
        ("grey.png", (115, 115, 115)),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), colour).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.png"))
    }


def rows() -> list[dict[str, str]]:
    with Path("sorted/sorted.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


PLACES = ["green/b.png", "green/c.png", "red/a-2.png", "red/a.png", "unsure/grey.png"]


@pytest.mark.parametrize("how", [(), ("--move",), ("--link",)])
def test_every_photo_is_in_its_class_and_none_is_lost(
    call: Call, heap: Path, how: tuple[str, ...]
) -> None:
    before = files(heap)
    status, out, err = call(heap, heap / "b.png", *how)
    assert status == 1  # one cannot be read, and stays
    assert "sorted into sorted: green 2, red 2, unsure 1" in err
    assert list(files(Path("sorted"))) == PLACES
    assert sorted(files(Path("sorted")).values()) == sorted(
        content for name, content in before.items() if name != "broken.png"
    )
    assert list(files(heap)) == (["broken.png"] if how == ("--move",) else list(before))
    assert Path("sorted/red/a.png").is_symlink() == (how == ("--link",))
    assert f"{heap / 'b.png'} -> sorted/green/b.png  (green " in out
    listed = {row["image"]: row for row in rows()}
    assert len(listed) == len(before)
    assert listed[str(heap / "broken.png")]["error"] == "not an image in a known format"
    assert listed[str(heap / "b.png")]["file"] == "green/b.png"


def test_a_photo_whose_double_lies_in_a_bin_is_not_lost(call: Call, heap: Path) -> None:
    before = (heap / "b.png").read_bytes()
    Path("sorted/#recycle").mkdir(parents=True)
    Path("sorted/#recycle/b.png").write_bytes(before)
    (heap / "@eaDir" / "b.png").mkdir(parents=True)
    (heap / "@eaDir" / "b.png" / "SYNOPHOTO_THUMB_M.png").write_bytes(before)
    call(heap, "--move")
    assert sorted(name for name in files(Path("sorted")) if "#" not in name) == PLACES
    assert Path("sorted/green/b.png").read_bytes() == before
    assert open_source("sorted").classes == ("green", "red")


def test_a_dry_run_says_the_same_and_writes_nothing(call: Call, heap: Path) -> None:
    _, dry, err = call(heap, "--dry-run")
    assert "would be sorted into sorted: green 2, red 2, unsure 1" in err
    assert not Path("sorted").exists()
    assert call(heap)[1] == dry


def test_sorted_twice_nothing_is_doubled_and_what_a_hand_changed_stays(
    call: Call, heap: Path
) -> None:
    call(heap)
    Path("sorted/green/b.png").write_bytes(b"changed by hand")
    Path("sorted/red/a.png").rename("sorted/green/put-right.png")
    out, err = call(heap)[1:]
    assert f"{heap / 'a.png'} is sorted/green/put-right.png already" in out
    assert "there already 4" in err
    again = files(Path("sorted"))
    again["red/a.png"] = again.pop("green/put-right.png")
    assert again.pop("green/b.png") == b"changed by hand"
    assert again.pop("green/b-2.png") == (heap / "b.png").read_bytes()
    assert sorted(again) == [place for place in PLACES if place != "green/b.png"]
    assert len(rows()) == 6 + 2  # what is new, and what cannot be read


def test_the_sorted_folder_is_data_to_train_on(call: Call, heap: Path) -> None:
    call(heap)
    source = open_source("sorted")
    assert source.classes == ("green", "red")
    assert len(source.open_part("train")) == 4
    assert "left out: 1 image lies in unsure/; file them by class, or leave them" in source.notes
    Path("sorted/sorted.csv").unlink()
    assert open_source("sorted").classes == ("green", "red", "unsure")  # a class like any other


def test_how_sure_is_a_probability_that_a_flag_gives(call: Call, heap: Path) -> None:
    call(heap, "--unsure", "1")
    assert list(files(Path("sorted"))) == [
        *("unsure/a-2.png", "unsure/a.png", "unsure/b.png", "unsure/c.png", "unsure/grey.png"),
    ]


def test_a_stop_in_the_middle_lists_what_was_moved(
    call: Call, heap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thawnet import sorting

    place = sorting.Sorter._place

    def stopped(sorter: sorting.Sorter, photo: Path, target: Path) -> bool:
        if photo.name == "c.png":
            raise KeyboardInterrupt
        return place(sorter, photo, target)

    monkeypatch.setattr(sorting.Sorter, "_place", stopped)
    before = files(heap)
    status, _, _ = call(heap, "--move")
    assert status == 130
    moved = {row["image"]: row["file"] for row in rows() if row["file"]}
    assert moved == {str(heap / "a.png"): "red/a.png", str(heap / "b.png"): "green/b.png"}
    assert len(files(heap)) + len(files(Path("sorted"))) == len(before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--json",), "--sort-into and --json: choose one"),
        (("--allow-url",), "--sort-into and --allow-url: choose one"),
        (("--move", "--link"), "--move and --link: choose one"),
        (("--unsure", "70"), "--unsure 70: must be a probability, 0 to 1"),
    ],
)
def test_contradictions_are_one_sentence(
    call: Call, heap: Path, words: tuple[str, ...], message: str
) -> None:
    status, _, err = call(heap, *words)
    assert status == 2
    assert err == f"thawnet: {message}\n"


def test_flags_of_sorting_need_a_folder(heap: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = called(capfd, "predict", heap, "--move")
    assert (status, err) == (
        2,
        "thawnet: --move, --link and --dry-run: they go with --sort-into FOLDER\n",
    )


@pytest.mark.parametrize(
    "name",
    ["con", "AUX.photos", "lpt1", "a/b", "..", ".hidden", "", " a", "a.", "con?", "x" * 256, "a\0"],
)
def test_a_class_that_can_be_no_folder_is_told_before_anything_is_copied(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a folder"):
        check_folder_names(("cat", name))


def test_a_class_called_unsure_is_told() -> None:
    with pytest.raises(UsageError, match="has a class 'unsure'"):
        check_folder_names(("cat", "unsure"))
