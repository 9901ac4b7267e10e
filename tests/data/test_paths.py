"""What is named on the command line becomes a list of images, in an order one can rely on."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from thawnet.core.errors import DataError
from thawnet.data.paths import image_names


@pytest.fixture(autouse=True)
def tree() -> None:
    """Lay out p/b.jpg, p/a.PNG, p/notes.txt, p/in/c.jpg, a hidden one, and a link in a circle."""
    inner = Path("p/in")
    inner.mkdir(parents=True)
    for name in ("p/b.jpg", "p/a.PNG", "p/notes.txt", "p/in/c.jpg", "p/.d.jpg", "p/[x].jpg"):
        Path(name).touch()
    (inner / "loop").symlink_to(Path("p").resolve())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["p"], ["p/[x].jpg", "p/a.PNG", "p/b.jpg", "p/in/c.jpg"]),
        (["./p/"], ["./p/[x].jpg", "./p/a.PNG", "./p/b.jpg", "./p/in/c.jpg"]),
        (["p/in/c.jpg", "p/b.jpg", "p/b.jpg"], ["p/in/c.jpg", "p/b.jpg", "p/b.jpg"]),
        (["p/*"], ["p/[x].jpg", "p/a.PNG", "p/b.jpg"]),
        (["p/i*/*.jpg", "p/[ab].*"], ["p/in/c.jpg", "p/a.PNG", "p/b.jpg"]),
        (["p/[x].jpg"], ["p/[x].jpg"]),  # there is a file of this name: no pattern
        (["p/notes.txt", "missing.jpg", ""], ["p/notes.txt", "missing.jpg", ""]),
        (["p/in/loop"], ["p/in/loop/[x].jpg", "p/in/loop/a.PNG", "p/in/loop/b.jpg"]),
    ],
)
def test_images_stand_in_the_order_given_and_sorted_within(
    given: list[str], expected: list[str]
) -> None:
    assert list(image_names(given, ()))[: len(expected)] == expected
    if given != ["p/in/loop"]:
        assert len(image_names(given, ())) == len(expected)


def test_two_stars_reach_any_depth() -> None:
    os.unlink("p/in/loop")  # noqa: PTH108
    names = list(image_names(["p/**/*.jpg"], ()))
    assert names == ["p/[x].jpg", "p/b.jpg", "p/in/c.jpg"]


def test_leftovers_of_other_programs_are_no_images_unless_they_are_asked_for() -> None:
    for name in ("p/@eaDir/b.jpg/SYNOPHOTO_THUMB_M.jpg", "p/in/#recycle/c.jpg", "SYNOPHOTO_B.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    os.unlink("p/in/loop")  # noqa: PTH108
    photos = ["p/[x].jpg", "p/b.jpg", "p/in/c.jpg"]
    assert list(image_names(["p"], ())) == [photos[0], "p/a.PNG", *photos[1:]]
    assert list(image_names(["p/**/*.jpg"], ())) == photos
    assert list(image_names(["p/in/#recycle/*.jpg"], ())) == ["p/in/#recycle/c.jpg"]
    assert list(image_names(["p/in/#recycle"], ())) == ["p/in/#recycle/c.jpg"]
    with pytest.raises(DataError, match="no image file matches"):
        image_names(["*.jpg"], ())


def test_list_on_stdin_is_taken_as_it_is() -> None:
    lines = [b"p/b.jpg\n", b"\n", b"a b\r\n", b"bad\xff.jpg\n", b"p\n", b"last"]
    expected = ["x", "p/b.jpg", "a b", "bad\udcff.jpg", "p", "last"]
    assert list(image_names(["x", "-"], lines)) == expected


def test_list_of_names_ended_by_nuls_keeps_line_breaks_and_spaces() -> None:
    expected = ["a\nb.jpg", " c \r", "bad\udcff.jpg", *map(str, range(100_000))]
    content = b"".join(os.fsencode(name) + b"\0" for name in expected)
    pieces = [content[at : at + 5] for at in range(0, 50, 5)]
    pieces += [content[at : at + 1000] for at in range(50, len(content), 1000)]
    assert list(image_names(["-"], pieces)) == expected
    assert list(image_names(["-"], [content[:-1]])) == expected  # without the last


@pytest.mark.parametrize(
    ("given", "told"),
    [("p/*.gif", "no image file matches 'p/[*].gif'"), ("empty", "no image files under")],
)
def test_nothing_found_is_said_at_once(given: str, told: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(DataError, match=told):
        image_names([given], ())


def test_lists_of_powershell_and_notepad_are_names_too() -> None:
    of_powershell = "a.png\r\nköttur.png\r\n".encode("utf-16")
    for data in (of_powershell, "\ufeffa.png\nköttur.png\n".encode()):
        assert list(image_names(["-"], io.BytesIO(data))) == ["a.png", "köttur.png"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "stdin holds an image and no names; name it /dev/stdin"),
        (b"\x89PNG\r\n\x1a\n", "stdin holds an image"),
        (b"", "no names came on stdin"),
        (b"\n\n", "no names came on stdin"),
    ],
)
def test_stdin_without_names_is_a_sentence(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        image_names(["-"], io.BytesIO(data))
