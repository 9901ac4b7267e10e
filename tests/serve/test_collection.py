"""`serve --collect`: photos whose class visitors named become a data set, within limits."""

from __future__ import annotations

import errno
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import called
from support.service import FORM, PNG, Service, command, form, picture
from thawnet.bundle.model import Model
from thawnet.commands.serve import ServeOptions, serve
from thawnet.core.errors import UsageError
from thawnet.data.sources.open import open_source
from thawnet.serve import collection as collection_module
from thawnet.serve.collection import Collection
from thawnet.serve.refusals import Refused

MEGABYTE = 2**20
Serving = Callable[..., Service]


def kept_in(folder: Path) -> list[str]:
    """Return the class folder and suffix of each file that was kept."""
    return sorted(f"{file.parent.name}{file.suffix}" for file in folder.glob("*/*"))


def teach(service: Service, label: str, photo: bytes, headers: dict[str, str] = PNG) -> int:
    """Name the class of a photo; return the status."""
    query = urllib.parse.urlencode({"class": label})
    return service.ask("POST", f"/collect?{query}", photo, headers).status


def test_photos_become_a_data_set_and_one_named_again_moves(
    model: Model, serving: Serving, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    service = serving(collection=Collection(folder, model.classes, MEGABYTE))
    assert service.ask("GET", "/model").json["collects"] is True
    red, blue, *_ = model.classes
    for number in range(3):
        photo = picture("red", (40 + number, 40))
        for label in (blue, red):
            assert teach(service, label, photo) == 200
        form_of_one = form((f"{number}.PNG", picture("blue", (40 + number, 40))))
        assert teach(service, blue, form_of_one, FORM) == 200
    assert teach(service, "unsure", picture("green")) == 200
    assert kept_in(folder) == sorted([f"{red}.jpg"] * 3 + [f"{blue}.png"] * 3 + ["unsure.jpg"])
    heading, *rows = (folder / "collected.csv").read_text().splitlines()
    assert heading == "image,class,predicted"
    assert len(rows) == 10
    assert all(row.split(",")[2] in model.classes for row in rows)
    source = open_source(str(folder))
    assert source.classes == tuple(sorted([red, blue]))
    assert len(source.open_part("train")) == 6


def test_what_is_there_counts_and_is_found_again_after_a_start(
    model: Model, tmp_path: Path
) -> None:
    first = Collection(tmp_path, model.classes, MEGABYTE)
    photo = picture("red")
    one, other, *_ = model.classes
    first.keep(photo, one, ".png")
    again = Collection(tmp_path, model.classes, MEGABYTE)
    assert again.keep(photo, other, ".gif").parts[0] == other
    assert kept_in(tmp_path) == [f"{other}.png"]
    assert not (tmp_path / one).exists()  # nothing of that class is left to train on


def test_owner_may_delete_and_move_photos_meanwhile(model: Model, tmp_path: Path) -> None:
    photo, (one, other, third, *_) = picture("red"), model.classes
    collection = Collection(tmp_path, model.classes, MEGABYTE)
    (tmp_path / collection.keep(photo, one, ".png")).unlink()
    kept = collection.keep(photo, one, ".png")
    assert kept_in(tmp_path) == [f"{one}.png"]
    (tmp_path / other).mkdir()
    (tmp_path / kept).rename(tmp_path / other / kept.name)
    collection.keep(photo, third, ".png")
    assert kept_in(tmp_path) == [f"{third}.png"]


def test_list_of_what_was_named_counts_too(model: Model, tmp_path: Path) -> None:
    photo, (one, other, *_) = picture("red"), model.classes
    collection = Collection(tmp_path, model.classes, len(photo) + 2000)
    for _ in range(100):
        collection.keep(photo, one, ".png")
    assert len((tmp_path / "collected.csv").read_text().splitlines()) == 2  # the same choice

    def name_it_again_and_again() -> None:
        for _ in range(100):
            collection.keep(photo, one, ".png")
            collection.keep(photo, other, ".png")

    with pytest.raises(Refused, match="are kept already"):
        name_it_again_and_again()
    assert 1000 < (tmp_path / "collected.csv").stat().st_size <= 2000


def test_a_full_disk_is_507(
    model: Model, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serving(collection=Collection(tmp_path, model.classes, MEGABYTE))

    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(collection_module, "write_atomic", write)
    assert teach(service, model.classes[0], picture("red")) == 507


def test_a_service_that_does_not_collect_says_so(serving: Serving) -> None:
    service = serving()
    assert service.ask("GET", "/model").json["collects"] is False
    assert teach(service, "red", picture("red")) == 404
    assert "/collect" not in service.ask("GET", "/openapi.json").json["paths"]


def test_what_cannot_be_kept_is_one_sentence(
    model: Model, serving: Serving, tmp_path: Path
) -> None:
    photo = picture("red")
    service = serving(collection=Collection(tmp_path, model.classes, len(photo) + 120))

    def refused(path: str, body: bytes, headers: dict[str, str] = PNG) -> tuple[int, str]:
        reply = service.ask("POST", path, body, headers)
        return reply.status, reply.json["error"]

    label = model.classes[0]
    status, said = refused("/collect", photo)
    assert (status, said) == (
        422,
        "name the image's class in the address: /collect?class=NAME",
    )
    status, said = refused("/collect?class=..%2Fetc", photo)
    assert status == 422
    assert said.startswith(f"'../etc' is none of the {len(model.classes)} classes (")
    assert label in said
    status, said = refused(f"/collect?class={label}", b"broken")
    assert (status, said) == (422, "not an image in a known format")
    two = form(("a.png", photo), ("b.png", photo))
    assert refused(f"/collect?class={label}", two, FORM) == (400, "2 images were sent; send one")
    assert teach(service, label, photo) == 200
    status, said = refused(f"/collect?class={label}", picture("blue"))
    assert status == 507
    assert said.endswith("of photos are kept already, the most here")
    assert len(kept_in(tmp_path)) == 1


def test_token_guards_what_is_kept(model: Model, serving: Serving, tmp_path: Path) -> None:
    collection = Collection(tmp_path, model.classes, MEGABYTE)
    service = serving(collection=collection, token="secret")
    assert teach(service, model.classes[0], picture("red")) == 401
    own = PNG | {"Authorization": "Bearer secret"}
    assert teach(service, model.classes[0], picture("red"), own) == 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"collect_mb": 0}, "--collect-mb 0: must be at least 1"),
        ({"collect": Path("file")}, "--collect 'file': this is a file; name a folder"),
    ],
)
def test_wrong_calls_are_one_line(words: dict[str, object], message: str) -> None:
    Path("file").touch()
    with pytest.raises(UsageError, match=message):
        serve(ServeOptions(**words))  # type: ignore[arg-type]


def test_folder_that_cannot_be_written_to_is_told_before_anyone_comes(
    colours: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    words = ("serve", "--model", colours, "--port", "0", "--collect", Path("file", "photos"))
    status, _, err = called(capfd, *words)
    assert status == 2
    assert "thawnet: --collect 'file/photos': " in err
    assert err.rstrip().endswith("name another folder")


def test_command_keeps_photos_in_a_folder_that_it_makes(colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "photos"
    with command("--model", colours, "--collect", folder) as (service, _):
        assert (folder / "collected.csv").exists()
        assert teach(service, "red", picture("red")) == 200
    assert kept_in(folder) == ["red.jpg"]
